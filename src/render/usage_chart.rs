//! Draws the tokens of some days as a picture (PNG): a bar for each day, the part of this chat darker.

use embedded_graphics::Pixel;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::mono_font::iso_8859_1::FONT_9X18;
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::{Rgb888, RgbColor, WebColors};
use embedded_graphics::prelude::{Dimensions, DrawTarget, Drawable};
use embedded_graphics::primitives::{PrimitiveStyle, Rectangle, StyledDrawable};
use embedded_graphics::text::{Alignment, Baseline, Text, TextStyleBuilder};

use crate::types::{ChartDay, UsageChart};

/// The picture, in pixels: as wide as a phone shows it without enlarging it.
const SIZE: Size = Size::new(840, 420);
/// The bars stand between these.
const TOP: i32 = 90;
const BOTTOM: i32 = 370;
const LEFT: i32 = 30;
const RIGHT: i32 = 810;
/// Of the room of a day so many parts in a hundred are between two bars.
const GAP_PERCENT: i32 = 25;
const FONT: MonoFont<'_> = FONT_9X18;
const INK: Rgb888 = Rgb888::CSS_DARK_SLATE_GRAY;
const ALL: Rgb888 = Rgb888::CSS_LIGHT_GREEN;
const CHAT: Rgb888 = Rgb888::CSS_SEA_GREEN;

/// The words in the picture. Characters beyond ISO 8859-1 cannot be shown.
#[derive(Clone, Copy, Debug)]
pub struct ChartWords<'a> {
    pub title: &'a str,
    pub all_chats: &'a str,
    pub this_chat: &'a str,
}

/// The picture as a PNG file.
///
/// # Errors
/// It cannot be encoded, which no chart is known to cause.
pub fn draw_usage_chart(chart: &UsageChart, words: ChartWords<'_>) -> anyhow::Result<Vec<u8>> {
    let mut canvas = Canvas::new(SIZE);
    draw_words(&mut canvas, words);
    draw_bars(&mut canvas, chart);
    canvas.encode_png()
}

fn draw_words(canvas: &mut Canvas, words: ChartWords<'_>) {
    write_text(canvas, words.title, Point::new(LEFT, 20), Alignment::Left);
    let mut at = Point::new(LEFT, 48);
    for (color, word) in [(ALL, words.all_chats), (CHAT, words.this_chat)] {
        fill(canvas, Rectangle::new(at, Size::new(14, 14)), color);
        write_text(canvas, word, at + Point::new(22, -2), Alignment::Left);
        at += Point::new(60 + text_width(word), 0);
    }
}

fn draw_bars(canvas: &mut Canvas, chart: &UsageChart) {
    let count = i32::try_from(chart.days.len()).unwrap_or(i32::MAX).max(1);
    let room = (RIGHT - LEFT) / count;
    let width = room - room * GAP_PERCENT / 100;
    let most = chart.days.iter().map(|day| day.in_all.max(day.in_chat)).max().unwrap_or_default();
    for ((nth, day), date) in (0..).zip(&chart.days).zip(chart.dates()) {
        let ChartDay { in_all, in_chat } = *day;
        let left = LEFT + room * nth;
        for (tokens, color) in [(in_all, ALL), (in_chat, CHAT)] {
            let height = bar_height(tokens, most);
            let bar = Rectangle::new(
                Point::new(left, BOTTOM - height),
                Size::new(width.cast_unsigned(), height.cast_unsigned()),
            );
            fill(canvas, bar, color);
        }
        let middle = left + width / 2;
        if in_all > 0 {
            let above = Point::new(middle, BOTTOM - bar_height(in_all, most) - 20);
            write_text(canvas, &shorten_number(in_all), above, Alignment::Center);
        }
        write_text(canvas, &date.day().to_string(), Point::new(middle, BOTTOM + 10), Alignment::Center);
    }
    let line = Rectangle::new(Point::new(LEFT, BOTTOM), Size::new((RIGHT - LEFT).cast_unsigned(), 2));
    fill(canvas, line, INK);
}

/// In pixels; what is more than nothing can be seen.
fn bar_height(tokens: u64, most: u64) -> i32 {
    let room = u128::from((BOTTOM - TOP).unsigned_abs());
    let height = u128::from(tokens) * room / u128::from(most.max(1));
    let height = i32::try_from(height).unwrap_or(BOTTOM - TOP);
    if tokens > 0 { height.max(2) } else { 0 }
}

/// A number that has room above a bar, such as `950`, `12k` or `1.4M`.
fn shorten_number(number: u64) -> String {
    let tenths = |unit: u64, letter: &str| {
        let (whole, tenth) = (number / unit, number % unit / (unit / 10));
        if whole < 10 && tenth > 0 { format!("{whole}.{tenth}{letter}") } else { format!("{whole}{letter}") }
    };
    match number {
        0..1_000 => number.to_string(),
        1_000..1_000_000 => tenths(1_000, "k"),
        1_000_000..1_000_000_000 => tenths(1_000_000, "M"),
        _ => tenths(1_000_000_000, "G"),
    }
}

fn text_width(text: &str) -> i32 {
    let characters = i32::try_from(text.chars().count()).unwrap_or(i32::MAX);
    characters.saturating_mul(FONT.character_size.width.cast_signed())
}

fn write_text(canvas: &mut Canvas, text: &str, at: Point, alignment: Alignment) {
    let style = TextStyleBuilder::new().alignment(alignment).baseline(Baseline::Top).build();
    let Ok(_) = Text::with_text_style(text, at, MonoTextStyle::new(&FONT, INK), style).draw(canvas);
}

fn fill(canvas: &mut Canvas, area: Rectangle, color: Rgb888) {
    let Ok(()) = area.draw_styled(&PrimitiveStyle::with_fill(color), canvas);
}

/// The pixels, row by row from the top.
struct Canvas {
    size: Size,
    pixels: Vec<Rgb888>,
}

impl Canvas {
    fn new(size: Size) -> Self {
        Self { size, pixels: vec![Rgb888::WHITE; (size.width * size.height) as usize] }
    }

    fn encode_png(&self) -> anyhow::Result<Vec<u8>> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, self.size.width, self.size.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        let bytes: Vec<u8> = self.pixels.iter().flat_map(|pixel| [pixel.r(), pixel.g(), pixel.b()]).collect();
        writer.write_image_data(&bytes)?;
        writer.finish()?;
        Ok(file)
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        self.size
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = std::convert::Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Self::Error> {
        let whole = self.bounding_box();
        for Pixel(at, color) in pixels {
            if whole.contains(at) {
                let index = at.y.unsigned_abs() * self.size.width + at.x.unsigned_abs();
                if let Some(pixel) = self.pixels.get_mut(index as usize) {
                    *pixel = color;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WORDS: ChartWords<'_> =
        ChartWords { title: "Tokens", all_chats: "all chats", this_chat: "este chat, así" };

    fn chart(days: &[(u64, u64)]) -> UsageChart {
        let days = days.iter().map(|(in_all, in_chat)| ChartDay { in_all: *in_all, in_chat: *in_chat });
        UsageChart { last_day: "2026-11-30".parse().unwrap(), days: days.collect() }
    }

    /// Width, height and pixels of a file.
    fn decode(file: &[u8]) -> (u32, u32, Vec<u8>) {
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        (info.width, info.height, pixels)
    }

    /// How many pixels of a column have this colour.
    fn column(pixels: &[u8], x: i32, color: Rgb888) -> i32 {
        let width = SIZE.width as usize;
        let wanted = [color.r(), color.g(), color.b()];
        let rows = pixels.chunks(width * 3).skip(TOP as usize);
        rows.filter(|row| row[x as usize * 3..][..3] == wanted).count().try_into().unwrap()
    }

    #[test]
    fn the_bars_are_as_high_as_the_days_tokens() {
        let days = [(100, 0), (50, 50), (0, 0), (25, 5)];
        let (width, height, pixels) = decode(&draw_usage_chart(&chart(&days), WORDS).unwrap());
        assert_eq!((width, height), (SIZE.width, SIZE.height));
        let room = (RIGHT - LEFT) / 4;
        let heights = |nth: i32| {
            let x = LEFT + room * nth + 2;
            (column(&pixels, x, ALL), column(&pixels, x, CHAT))
        };
        let whole = BOTTOM - TOP;
        assert_eq!(heights(0), (whole, 0));
        assert_eq!(heights(1), (0, whole / 2));
        assert_eq!(heights(2), (0, 0));
        assert_eq!(heights(3), (whole / 4 - whole / 20, whole / 20));
    }

    #[test]
    fn a_picture_is_small() {
        let days = [(1_234_567, 4_321), (0, 0), (400_000, 399_000), (12_000, 900)].repeat(4);
        let days = &days[..14];
        let file = draw_usage_chart(&chart(days), WORDS).unwrap();
        assert!(file.len() < 20_000, "{} bytes", file.len());
    }

    #[test]
    fn numbers_have_room() {
        for (number, expected) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1k"),
            (1_499, "1.4k"),
            (12_900, "12k"),
            (999_999, "999k"),
            (1_400_000, "1.4M"),
            (u64::MAX, "18446744073G"),
        ] {
            assert_eq!(shorten_number(number), expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn any_days_can_be_drawn(days in prop::collection::vec(any::<(u64, u64)>(), 0..40)) {
            decode(&draw_usage_chart(&chart(&days), WORDS).unwrap());
        }
    }
}
