//! A text in WhatsApp's formatting, with what a cut through it has to know.

use std::ops::Range;

/// What a chat is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FormattedText {
    pub text: String,
    /// Styles and code within a line, by their beginnings; each is within another one or beside it.
    pub styled: Vec<StyledRange>,
    /// Of tables in blocks of code what stands above the first row: the fence, the header and its line.
    pub table_heads: Vec<Range<usize>>,
}

/// Something between two delimiters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StyledRange {
    /// With the delimiters.
    pub range: Range<usize>,
    /// From the first to the last character that is no white space.
    pub content: Range<usize>,
    /// Bytes of each delimiter.
    pub width: usize,
}

impl FormattedText {
    pub fn append(&mut self, other: &Self) {
        let by = self.text.len();
        let moved = |range: &Range<usize>| range.start + by..range.end + by;
        self.text.push_str(&other.text);
        self.styled.extend(other.styled.iter().map(|styled| StyledRange {
            range: moved(&styled.range),
            content: moved(&styled.content),
            width: styled.width,
        }));
        self.table_heads.extend(other.table_heads.iter().map(moved));
    }

    /// Remembers that what stands from `start` to the end is between delimiters of so many bytes.
    pub fn mark_styled_from(&mut self, start: usize, width: usize) {
        let range = start..self.text.len();
        let inner = self.text.get(start + width..range.end.saturating_sub(width)).unwrap_or_default();
        let visible_from = start + width + (inner.len() - inner.trim_start().len());
        let content = visible_from..visible_from + inner.trim().len();
        if !content.is_empty() {
            self.styled.push(StyledRange { range, content, width });
        }
    }

    /// The text without the delimiters.
    pub fn text_without_delimiters(&self) -> String {
        let delimiters = self.styled.iter().flat_map(|StyledRange { range, width, .. }| {
            [range.start..range.start + width, range.end - width..range.end]
        });
        let mut delimiters: Vec<Range<usize>> = delimiters.collect();
        delimiters.sort_by_key(|range| range.start);
        let mut words = String::with_capacity(self.text.len());
        let mut read = 0;
        for delimiter in delimiters {
            words.push_str(self.text.get(read..delimiter.start).unwrap_or_default());
            read = read.max(delimiter.end);
        }
        words + self.text.get(read..).unwrap_or_default()
    }
}

impl From<String> for FormattedText {
    /// What is formatted already, or not at all.
    fn from(text: String) -> Self {
        Self { text, ..Self::default() }
    }
}
