//! The first sentence of a caption: a quarter of the drawing samples see no more than that, so
//! that the model also draws from short prompts.
//!
//! Source: Janus (arXiv 2410.13848), section 4.1.

/// Shortenings after which a sentence goes on although a name follows.
const SHORTENINGS: [&str; 11] =
    ["mr", "mrs", "ms", "dr", "st", "prof", "vs", "etc", "no", "e.g", "i.e"];

/// The text up to the end of its first sentence, mark included; all of it where it has only one.
pub fn first_sentence(text: &str) -> &str {
    let text = text.trim();
    let mut marks = text.char_indices().peekable();
    while let Some((at, mark)) = marks.next() {
        let end = at + mark.len_utf8();
        let next = marks.peek().map(|(_, next)| *next);
        let ends = match mark {
            '\n' => return text[..at].trim_end(),
            '。' | '！' | '？' => true,
            '!' | '?' => next.is_none_or(char::is_whitespace),
            '.' => next.is_none_or(char::is_whitespace) && !is_shortening(&text[..at]),
            _ => false,
        };
        if ends {
            return &text[..end];
        }
    }
    text
}

/// Whether the last word before a full stop is one that is written with it.
fn is_shortening(before: &str) -> bool {
    let word = before.rsplit(char::is_whitespace).next().unwrap_or_default();
    let word = word.trim_start_matches(['(', '"', '\'']);
    // A lone letter is an initial.
    let initial = word.chars().count() == 1 && word.chars().all(char::is_uppercase);
    initial || SHORTENINGS.iter().any(|known| word.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sentence_is_kept() {
        for (text, first) in [
            ("A cat. It sleeps.", "A cat."),
            ("A cat", "A cat"),
            ("  A cat sleeps.  ", "A cat sleeps."),
            ("What a cat! It sleeps.", "What a cat!"),
            ("A cat, 3.5 years old. It sleeps.", "A cat, 3.5 years old."),
            ("Dr. Who and J. R. Ewing. They talk.", "Dr. Who and J. R. Ewing."),
            ("Fruit, e.g. apples. On a table.", "Fruit, e.g. apples."),
            ("一只猫。它睡着了。", "一只猫。"),
            ("A title\nA cat.", "A title"),
            ("Is it? Yes.", "Is it?"),
            ("", ""),
        ] {
            assert_eq!(first_sentence(text), first, "{text}");
        }
    }
}
