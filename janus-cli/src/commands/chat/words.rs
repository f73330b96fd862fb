//! What a line means: a command, pictures, or something to say with pictures in it.
//!
//! Terminals paste the path of a dragged file quoted, with backslashes before special characters,
//! or as a `file://` URL. A path in one of these forms is a picture wherever it stands, if there
//! is such a picture; a bare path is one only on a line of nothing but pictures.

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::pictures;
use crate::report::{Exit, Failure};

/// A line, understood.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    /// Nothing.
    Blank,
    /// Something to do.
    Command(Command),
    /// Pictures for the next question.
    Pictures(Vec<PathBuf>),
    /// Something to say.
    Question(Vec<Piece>),
}

/// A piece of a question.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    Picture(PathBuf),
}

/// A line that begins with a slash.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    Help,
    Image(Vec<PathBuf>),
    Images,
    Clear,
    Undo,
    Retry,
    /// Without text: show it.
    System(Option<String>),
    Save(PathBuf),
    /// Without a name: show all.
    Settings(Option<(String, String)>),
    Quit,
}

/// What `/help` shows.
pub const HELP: &str = "\
/image PATH…          pictures for the next question; dragging them here does the same
/images               list the pictures
/undo                 take back the last turn
/retry                another answer to the last question
/clear                begin a new conversation
/system [TEXT]        show the system prompt, or begin again with another; \"\" for none
/settings [NAME N]    show how answers are chosen, or change it
/save FILE.jsonl      write the conversation as one line of training data
/quit                 or Ctrl-D
A line that ends in \\ goes on in the next; so do all lines between \"\"\" and \"\"\".
<image> in a question is the place of a picture. Ctrl-C stops an answer.
";

/// Understands a line. `picture` tells whether a path is that of a picture.
///
/// # Errors
/// A command that does not exist or lacks something.
pub fn understand(line: &str, picture: impl Fn(&Path) -> bool) -> Result<Entry, Failure> {
    if line.trim().is_empty() {
        return Ok(Entry::Blank);
    }
    let words = words(line);
    let at = |word: &Word| Some(path(&word.text)).filter(|path| picture(path));
    if let Some(all) = words.iter().map(at).collect() {
        return Ok(Entry::Pictures(all));
    }
    if line.starts_with('/') {
        return command(line).map(Entry::Command);
    }
    let mut pieces = Vec::new();
    let mut text = 0..0;
    for (word, path) in words.iter().filter(|w| w.marked).filter_map(|w| Some((w, at(w)?))) {
        text.end = word.range.start;
        pieces.extend(piece(line, &text));
        pieces.push(Piece::Picture(path));
        text = word.range.end..word.range.end;
    }
    text.end = line.len();
    pieces.extend(piece(line, &text));
    Ok(Entry::Question(pieces))
}

fn piece(line: &str, range: &Range<usize>) -> Option<Piece> {
    (!range.is_empty()).then(|| Piece::Text(line[range.clone()].to_owned()))
}

/// Whether there is a file with the name of a picture.
pub fn is_picture(path: &Path) -> bool {
    pictures::has_picture_name(path) && path.is_file()
}

fn command(line: &str) -> Result<Command, Failure> {
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let needs = |what: &str| {
        let failure = Failure::new(Exit::Usage, format!("{name} needs {what}"));
        if rest.is_empty() { Err(failure) } else { Ok(rest) }
    };
    let command = match name {
        "/help" | "/?" => Command::Help,
        "/image" => Command::Image(paths(needs("the path of a picture")?)),
        "/images" => Command::Images,
        "/clear" => Command::Clear,
        "/undo" => Command::Undo,
        "/retry" => Command::Retry,
        "/system" => Command::System((!rest.is_empty()).then(|| match rest {
            "\"\"" | "''" => String::new(),
            text => text.to_owned(),
        })),
        "/save" => Command::Save(paths(needs("the name of a file")?).swap_remove(0)),
        "/settings" => Command::Settings(
            rest.split_once(char::is_whitespace)
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .or((!rest.is_empty()).then(|| (rest.to_owned(), String::new()))),
        ),
        "/quit" | "/exit" | "/bye" => Command::Quit,
        _ => {
            let failure = Failure::new(Exit::Usage, format!("there is no command {name}"));
            return Err(
                failure.hint("/help lists them; text that begins with / needs a space before it")
            );
        }
    };
    let alone = matches!(
        command,
        Command::Help
            | Command::Images
            | Command::Clear
            | Command::Undo
            | Command::Retry
            | Command::Quit
    );
    if alone && !rest.is_empty() {
        return Err(Failure::new(Exit::Usage, format!("{name} stands alone on its line")));
    }
    Ok(command)
}

/// Paths behind a command: one as it is, if there is such a file, else words. Never empty.
fn paths(rest: &str) -> Vec<PathBuf> {
    let whole = path(rest);
    if whole.exists() {
        return vec![whole];
    }
    words(rest).iter().map(|word| path(&word.text)).collect()
}

/// A word of a line as a shell would see it.
struct Word {
    range: Range<usize>,
    /// Without quotes and backslashes.
    text: String,
    /// Written in a way that people do not write words.
    marked: bool,
}

fn words(line: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(skip) = line[at..].find(|c: char| !c.is_whitespace()) {
        let start = at + skip;
        let (length, text, marked) = quoted(&line[start..]).unwrap_or_else(|| bare(&line[start..]));
        at = start + length;
        words.push(Word { range: start..at, text, marked });
    }
    words
}

/// A word in quotes, closed before white space, punctuation or the end. An apostrophe is none.
fn quoted(text: &str) -> Option<(usize, String, bool)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let inside = &text[1..];
    let length = inside.find(quote)?;
    let after = inside[length + 1..].chars().next();
    let closed = after.is_none_or(|c| c.is_whitespace() || c.is_ascii_punctuation());
    closed.then(|| (length + 2, inside[..length].to_owned(), true))
}

/// A word up to white space; a backslash makes the next character part of it.
fn bare(text: &str) -> (usize, String, bool) {
    let (mut word, mut marked) = (String::new(), text.starts_with("file://"));
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        if c.is_whitespace() {
            return (at, word, marked);
        }
        // On Windows it stands between folders.
        if c == '\\' && cfg!(not(windows)) {
            marked = true;
            word.extend(characters.next().map(|(_, c)| c));
        } else {
            word.push(c);
        }
    }
    (text.len(), word, marked)
}

/// The path that a word means: `file://` URLs and `~` are resolved.
fn path(word: &str) -> PathBuf {
    if let Some(rest) = word.strip_prefix("file://") {
        let rest = rest.strip_prefix("localhost").unwrap_or(rest);
        let rest = if cfg!(windows) { rest.strip_prefix('/').unwrap_or(rest) } else { rest };
        return PathBuf::from(percent_decoded(rest));
    }
    match (word.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(word),
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Entry {
        let known = ["/p/a.png", "/p/my cat.png", "b.jpg", "/p/it's.png"];
        let picture = |path: &Path| known.iter().any(|known| Path::new(known) == path);
        understand(line, picture).unwrap()
    }

    fn text(text: &str) -> Piece {
        Piece::Text(text.to_owned())
    }

    #[test]
    #[cfg(unix)]
    fn dragged_pictures_are_recognised_however_they_are_pasted() {
        for line in
            ["/p/my\\ cat.png", "'/p/my cat.png' ", "\"/p/my cat.png\"", "file:///p/my%20cat.png"]
        {
            assert_eq!(read(line), Entry::Pictures(vec!["/p/my cat.png".into()]), "{line}");
            let inside = format!("Is {line} a cat?");
            let Entry::Question(pieces) = read(&inside) else { panic!("{inside}") };
            assert_eq!(
                pieces[..2],
                [text("Is "), Piece::Picture("/p/my cat.png".into())],
                "{line}"
            );
            assert!(matches!(&pieces[2], Piece::Text(rest) if rest.trim() == "a cat?"), "{line}");
        }
        assert_eq!(
            read("/p/a.png b.jpg"),
            Entry::Pictures(vec!["/p/a.png".into(), "b.jpg".into()])
        );
        assert_eq!(read("/p/it\\'s.png"), Entry::Pictures(vec!["/p/it's.png".into()]));
    }

    #[test]
    fn words_are_left_alone() {
        for line in
            ["what's in b.jpg?", "say 'b.png'", "it's 'tis", "b.jpg is bare", " /clear", "\"open"]
        {
            assert_eq!(read(line), Entry::Question(vec![text(line)]), "{line}");
        }
        assert_eq!(
            read("'b.jpg', please"),
            Entry::Question(vec![Piece::Picture("b.jpg".into()), text(", please")])
        );
        assert_eq!(read(" \t"), Entry::Blank);
    }

    #[test]
    fn commands_take_what_they_need() {
        assert_eq!(
            read("/image x.png 'y z.png'"),
            Entry::Command(Command::Image(vec!["x.png".into(), "y z.png".into()]))
        );
        assert_eq!(
            read("/system Be brief."),
            Entry::Command(Command::System(Some("Be brief.".into())))
        );
        assert_eq!(read("/system \"\""), Entry::Command(Command::System(Some(String::new()))));
        assert_eq!(read("/system"), Entry::Command(Command::System(None)));
        let settings = Some(("top-k".to_owned(), "5".to_owned()));
        assert_eq!(read("/settings top-k 5"), Entry::Command(Command::Settings(settings)));
        for wrong in ["/nonsense", "/image", "/save ", "/undo 2"] {
            assert!(understand(wrong, |_| false).is_err(), "{wrong}");
        }
    }

    #[test]
    fn urls_are_decoded_without_panicking() {
        assert_eq!(percent_decoded("a%20b%C3%A9%zz%4"), "a bé%zz%4");
        assert_eq!(
            path("file://localhost/a%2Fb"),
            PathBuf::from(if cfg!(windows) { "a/b" } else { "/a/b" })
        );
    }
}
