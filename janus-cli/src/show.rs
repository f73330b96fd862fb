//! Pictures in the terminal, on stderr: stdout holds data only.
//!
//! | way | terminals | picture as |
//! |---|---|---|
//! | kitty graphics, <https://sw.kovidgoyal.net/kitty/graphics-protocol/> | kitty, Ghostty | PNG |
//! | OSC 1337, <https://iterm2.com/documentation-images.html> | iTerm2, WezTerm, VS Code | PNG |
//! | half blocks in 24-bit colour | nearly all; only when asked for | text |
//!
//! A picture takes the same place whichever way it is shown, so that a preview can be replaced:
//! [`ROWS`] lines are made free first, and the cursor ends below them.
//! `NO_COLOR` is about the colour of text and has no say in pictures.

use std::io::{self, IsTerminal, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use janus_model::processor::RgbImage8;

use crate::args::Show;

/// Cells a picture is wide: cells are about twice as high as wide, and 40 fit everywhere.
const COLUMNS: usize = 40;
/// Lines a picture is high.
const ROWS: usize = 20;
/// Characters of base64 in one message to kitty.
const CHUNK: usize = 4096;

/// How a terminal is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Kitty,
    Iterm,
    Blocks,
}

impl Way {
    /// What the terminal of these variables can do beyond text.
    fn of(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let is = |name: &str, value: &str| variable(name).as_deref() == Some(value);
        let term = variable("TERM").unwrap_or_default();
        // They pass pictures on only if told to, and forget them when they redraw.
        if variable("TMUX").is_some() || term.starts_with("tmux") || term.starts_with("screen") {
            return None;
        }
        if ["iTerm.app", "WezTerm", "vscode"].iter().any(|program| is("TERM_PROGRAM", program))
            || is("LC_TERMINAL", "iTerm2")
        {
            return Some(Self::Iterm);
        }
        let kitty = ["xterm-kitty", "xterm-ghostty"].contains(&term.as_str());
        let kitty = kitty || is("TERM_PROGRAM", "ghostty") || variable("KITTY_WINDOW_ID").is_some();
        kitty.then_some(Self::Kitty)
    }
}

/// Where pictures are shown, if anywhere.
pub struct Screen {
    way: Option<Way>,
    /// The last picture is a preview, and nothing came after it.
    open: bool,
}

impl Screen {
    /// As was asked for; never where stderr is no terminal.
    pub fn new(show: Show) -> Self {
        let found = || Way::of(|name| std::env::var(name).ok());
        let way = match show {
            Show::Never => None,
            Show::Auto => found(),
            Show::Always => Some(found().unwrap_or(Way::Blocks)),
        };
        Self { way: way.filter(|_| io::stderr().is_terminal()), open: false }
    }

    /// Shows a picture that is still being drawn; the next one takes its place.
    pub fn preview(&mut self, image: &RgbImage8) {
        self.put(image);
        self.open = true;
    }

    /// Shows a finished picture, in place of its preview if there is one.
    pub fn finished(&mut self, image: &RgbImage8) {
        self.put(image);
        self.open = false;
    }

    fn put(&self, image: &RgbImage8) {
        // Whoever asked for pictures gets them as well as it goes: this is no place for errors.
        let Some(bytes) = self.way.and_then(|way| message(way, image, self.open)) else { return };
        let _ = io::stderr().write_all(&bytes);
    }
}

/// Everything that is sent for one picture.
fn message(way: Way, image: &RgbImage8, replace: bool) -> Option<Vec<u8>> {
    let mut text = String::from("\r\x1b[K");
    if !replace {
        text.push_str(&"\n".repeat(ROWS));
    }
    // Up to the free lines; the place is kept, for terminals differ in where a picture ends.
    text.push_str(&format!("\x1b[{ROWS}A\x1b7"));
    match way {
        Way::Kitty => {
            if replace {
                text.push_str("\x1b_Ga=d,d=C,q=2\x1b\\");
            }
            kitty(&mut text, &image.to_png().ok()?);
        }
        Way::Iterm => iterm(&mut text, &image.to_png().ok()?),
        Way::Blocks => blocks(&mut text, image),
    }
    text.push_str(&format!("\x1b8\x1b[{ROWS}B\r"));
    Some(text.into_bytes())
}

fn kitty(text: &mut String, png: &[u8]) {
    let data = STANDARD.encode(png);
    let mut settings = format!("a=T,f=100,c={COLUMNS},r={ROWS},C=1,q=2,");
    let mut rest = data.as_str();
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(rest.len().min(CHUNK));
        let more = u8::from(!after.is_empty());
        text.push_str(&format!("\x1b_G{settings}m={more};{chunk}\x1b\\"));
        settings.clear();
        rest = after;
    }
}

fn iterm(text: &mut String, png: &[u8]) {
    let (size, data) = (png.len(), STANDARD.encode(png));
    text.push_str(&format!(
        "\x1b]1337;File=inline=1;size={size};width={COLUMNS};height={ROWS};\
         preserveAspectRatio=1:{data}\x07"
    ));
}

/// Two pixels per cell: the upper one behind, the lower one in the half block.
fn blocks(text: &mut String, image: &RgbImage8) {
    for row in 0..ROWS {
        for column in 0..COLUMNS {
            let [r, g, b] = mean(image, column, 2 * row);
            text.push_str(&format!("\x1b[48;2;{r};{g};{b}m"));
            let [r, g, b] = mean(image, column, 2 * row + 1);
            text.push_str(&format!("\x1b[38;2;{r};{g};{b}m\u{2584}"));
        }
        text.push_str("\x1b[0m\r\x1b[1B");
    }
}

/// Mean colour of one place of a raster of [`COLUMNS`] by twice [`ROWS`].
fn mean(image: &RgbImage8, column: usize, row: usize) -> [u8; 3] {
    let range = |at: usize, places: usize, size: usize| {
        let start = at * size / places;
        start..((at + 1) * size / places).max(start + 1)
    };
    let mut sum = [0usize; 3];
    let (across, down) =
        (range(column, COLUMNS, image.width()), range(row, 2 * ROWS, image.height()));
    for y in down.clone() {
        for x in across.clone() {
            let at = 3 * (y * image.width() + x);
            for (sum, value) in sum.iter_mut().zip(&image.pixels()[at..at + 3]) {
                *sum += usize::from(*value);
            }
        }
    }
    sum.map(|sum| (sum / (across.len() * down.len())) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(variables: &[(&str, &str)]) -> Option<Way> {
        Way::of(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn text(way: Way, image: &RgbImage8, replace: bool) -> String {
        String::from_utf8(message(way, image, replace).expect("a message")).expect("text")
    }

    #[test]
    fn terminals_are_known_by_their_variables() {
        assert_eq!(way(&[("TERM", "xterm-256color")]), None);
        assert_eq!(way(&[("TERM", "xterm-kitty")]), Some(Way::Kitty));
        assert_eq!(way(&[("TERM", "xterm-ghostty")]), Some(Way::Kitty));
        assert_eq!(way(&[("TERM_PROGRAM", "ghostty")]), Some(Way::Kitty));
        for program in ["iTerm.app", "WezTerm", "vscode"] {
            assert_eq!(way(&[("TERM_PROGRAM", program)]), Some(Way::Iterm), "{program}");
        }
        assert_eq!(way(&[("LC_TERMINAL", "iTerm2")]), Some(Way::Iterm));
        // A terminal inside another one is the one that counts.
        assert_eq!(way(&[("KITTY_WINDOW_ID", "1"), ("TERM_PROGRAM", "vscode")]), Some(Way::Iterm));
        assert_eq!(way(&[("TERM_PROGRAM", "iTerm.app"), ("TMUX", "x")]), None);
        assert_eq!(way(&[("KITTY_WINDOW_ID", "1"), ("TERM", "screen-256color")]), None);
    }

    #[test]
    fn kitty_gets_a_png_in_pieces() {
        let image = RgbImage8::filled(1, 1, [9, 8, 7]);
        let data = STANDARD.encode(image.to_png().expect("a picture"));
        let lines = "\n".repeat(20);
        assert_eq!(
            text(Way::Kitty, &image, false),
            format!(
                "\r\x1b[K{lines}\x1b[20A\x1b7\x1b_Ga=T,f=100,c=40,r=20,C=1,q=2,m=0;{data}\x1b\\\
                 \x1b8\x1b[20B\r"
            )
        );
        let again = text(Way::Kitty, &image, true);
        assert!(again.starts_with("\r\x1b[K\x1b[20A\x1b7\x1b_Ga=d,d=C,q=2\x1b\\\x1b_Ga=T,"));

        let mut long = String::new();
        kitty(&mut long, &[0; 6144 + 3]);
        let (a, rest) = ("A".repeat(4096), "AAAA");
        let settings = "a=T,f=100,c=40,r=20,C=1,q=2,";
        assert_eq!(
            long,
            format!("\x1b_G{settings}m=1;{a}\x1b\\\x1b_Gm=1;{a}\x1b\\\x1b_Gm=0;{rest}\x1b\\")
        );
    }

    #[test]
    fn iterm_gets_a_png_at_once() {
        let mut message = String::new();
        iterm(&mut message, b"abc");
        assert_eq!(
            message,
            "\x1b]1337;File=inline=1;size=3;width=40;height=20;preserveAspectRatio=1:YWJj\x07"
        );
    }

    #[test]
    fn half_blocks_are_means_of_pixels() {
        // Two by two pixels for each place; the left half of the picture is striped.
        let striped = |x: usize| if x < 40 && x % 2 == 1 { 0 } else { 200 };
        let pixels = (0..80 * 80).flat_map(|i| [striped(i % 80), 0, 0]).collect();
        let image = RgbImage8::new(80, 80, pixels).expect("a picture");
        let mut message = String::new();
        blocks(&mut message, &image);
        let cell = |red: u8| format!("\x1b[48;2;{red};0;0m\x1b[38;2;{red};0;0m\u{2584}");
        let line = [cell(100).repeat(20), cell(200).repeat(20), "\x1b[0m\r\x1b[1B".into()].concat();
        assert_eq!(message, line.repeat(20));
        // Fewer pixels than places.
        assert_eq!(mean(&RgbImage8::filled(1, 1, [1, 2, 3]), 39, 39), [1, 2, 3]);
    }
}
