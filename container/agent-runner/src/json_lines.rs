//! JSON Lines, as both engines keep their histories: what is the same in reading them.

use std::io::{self, BufRead, Write};

/// Passes on the rest of a line that is too long to be held.
pub fn copy_rest_of_line(reader: &mut impl BufRead, writer: &mut impl Write) -> io::Result<()> {
    loop {
        let buffer = reader.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        let length = end.unwrap_or(buffer.len());
        writer.write_all(&buffer[..length])?;
        reader.consume(length);
        if end.is_some() || length == 0 {
            return Ok(());
        }
    }
}
