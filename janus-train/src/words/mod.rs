//! A vocabulary learnt from text: the tokenizer of a Janus that is trained from nothing.
//!
//! ```text
//! samples ─ as training writes them ─► texts ─ DeepSeek's splits ─► words, counted ─ merge ─► tokenizer.json
//! ```
//! Byte-level BPE by the rules of the published tokenizer (`rules.json`): newlines, words with the
//! blank before them, punctuation, Chinese, single digits. All 256 bytes are tokens, so nothing is
//! unknown. Behind what was learnt come Janus' special tokens, in the published order.
//!
//! Words count as often as a model will read them: the system text that a conversation has at
//! inference counts with every conversation. The same files give the same bytes.

mod merge;

use std::collections::{BTreeMap, HashMap};
use std::ops::{ControlFlow, Range};

use janus_model::ErrorKind;
use janus_model::processor::{DEFAULT_SYSTEM_PROMPT, JanusTokenizer, TokenizerError};
use rayon::prelude::*;
use serde_json::{Value, json};
use tokenizers::{
    Model, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Tokenizer,
};

use self::merge::{Word, merge};
use crate::config;
use crate::data::budget::Ledger;
use crate::data::formats::Reader;
use crate::data::sample::{Content, Kind, Piece, Sample};
use crate::data::source::reader;
use crate::data::{Bad, DataError, OnBad};

/// What every tokenizer of the family has; vocabulary, merges and special tokens are put in.
const RULES: &str = include_str!("rules.json");

/// Tokens with a meaning of their own, in the published order.
const SPECIAL: [&str; 14] = [
    BOS,
    "<｜end▁of▁sentence｜>",
    "<｜▁pad▁｜>",
    "<begin_of_image>",
    "<end_of_image>",
    "<image_placeholder>",
    "<patch_placeholder>",
    "<|ref|>",
    "<|/ref|>",
    "<|det|>",
    "<|/det|>",
    "<|grounding|>",
    "<|User|>",
    "<|Assistant|>",
];
const BOS: &str = "<｜begin▁of▁sentence｜>";

/// Fewest tokens: every byte, and the special ones.
pub const SMALLEST: usize = 256 + SPECIAL.len();
/// Most tokens.
pub const LARGEST: usize = 1 << 18;

/// Symbols of a word; the rest of a longer one counts as another word.
const MAX_SYMBOLS: usize = 64;
/// Different words that are kept in memory.
const MAX_WORDS: usize = 1 << 22;
/// Samples between two looks at the watch.
const AT_ONCE: u64 = 4096;

/// Text to learn from.
#[derive(Debug)]
pub struct Texts {
    files: Vec<(String, Box<dyn Reader>)>,
    on_bad: OnBad,
}

/// What happens on the way.
#[derive(Debug)]
pub enum Event<'a> {
    /// A sample is left out.
    LeftOut(&'a Bad),
    /// So many samples are read.
    Read(u64),
}

/// A tokenizer, and what it does with the text that it was learnt from.
#[derive(Debug)]
pub struct Vocabulary {
    /// `tokenizer.json`.
    pub json: String,
    /// The same, loaded.
    pub tokenizer: JanusTokenizer,
    /// Pairs that become one token.
    pub merges: usize,
    /// Samples that were used.
    pub samples: u64,
    /// Samples that could not be used.
    pub left_out: u64,
    /// Characters of the text.
    pub characters: u64,
    /// Tokens of the text.
    pub tokens: u64,
    /// Tokens of the usual system text.
    pub system_prompt: usize,
}

/// Why there is no vocabulary.
#[derive(Debug, thiserror::Error)]
pub enum WordsError {
    /// The data are of no use, or too many samples are bad.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Nothing to learn from.
    #[error("there is no text in the data")]
    NoText,
    /// More different words than can be counted.
    #[error("more than {MAX_WORDS} different words")]
    TooMany,
    /// The tokenizer does not work, which would be a bug.
    #[error("the tokenizer cannot be used")]
    Tokenizer(#[from] TokenizerError),
    /// The same, in the words of another library.
    #[error("the tokenizer cannot be used: {0}")]
    Library(String),
}

impl WordsError {
    /// The class that decides the exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Data(error) => error.kind(),
            Self::NoText | Self::TooMany => ErrorKind::BadData,
            Self::Tokenizer(_) | Self::Library(_) => ErrorKind::Internal,
        }
    }

    /// What to do next, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Data(error) => error.hint(),
            Self::TooMany => Some("a part of the text is enough to learn from".to_owned()),
            _ => None,
        }
    }
}

impl From<tokenizers::Error> for WordsError {
    fn from(error: tokenizers::Error) -> Self {
        Self::Library(error.to_string())
    }
}

/// Words in the byte-level alphabet, and how often they occur.
#[derive(Default)]
struct Count {
    words: BTreeMap<String, u64>,
    characters: u64,
    samples: u64,
    left_out: u64,
}

impl Texts {
    /// Opens files. Weights do not matter here.
    ///
    /// # Errors
    /// [`DataError`] where nothing can come of it: missing, empty, not of its format.
    pub fn open(sources: &[config::Source], on_bad: OnBad) -> Result<Self, DataError> {
        let open = |source: &config::Source| {
            Ok((source.path.display().to_string(), reader(&source.spec())?))
        };
        Ok(Self { files: sources.iter().map(open).collect::<Result<_, DataError>>()?, on_bad })
    }

    /// Samples to read.
    pub fn len(&self) -> u64 {
        self.files.iter().map(|(_, reader)| samples(reader.as_ref())).sum()
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A tokenizer with `size` tokens, special ones included, or fewer where no pair occurs twice
    /// any more. `None` where `watch` broke it off.
    ///
    /// # Errors
    /// [`WordsError`]; `size` is taken into [`SMALLEST`] to [`LARGEST`].
    pub fn learn(
        &self,
        size: usize,
        watch: impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Option<Vocabulary>, WordsError> {
        let Some(count) = self.count(watch)? else { return Ok(None) };
        if count.words.is_empty() {
            return Err(WordsError::NoText);
        }
        let alphabet = alphabet();
        let letters: HashMap<char, u32> = (0..).zip(&alphabet).map(|(id, c)| (*c, id)).collect();
        let word = |(text, count): (&String, &u64)| Word {
            tokens: text.chars().filter_map(|c| letters.get(&c).copied()).collect(),
            count: *count,
        };
        let mut words: Vec<Word> = count.words.iter().map(word).collect();
        let base = size.clamp(SMALLEST, LARGEST) - SPECIAL.len();
        let learnt = merge(alphabet.iter().map(char::to_string).collect(), &mut words, base);

        let pairs = learnt.pairs.iter();
        let name = |id: u32| &learnt.tokens[id as usize];
        let pairs: Vec<_> = pairs.map(|(left, right)| [name(*left), name(*right)]).collect();
        let rules: Tokenizer = tokenizer(&learnt.tokens, &pairs)?;
        let mut tokens = 0;
        for (text, count) in &count.words {
            tokens += count * rules.get_model().tokenize(text)?.len() as u64;
        }
        let json = rules.to_string(true)? + "\n";
        let tokenizer = JanusTokenizer::from_json(json.as_bytes())?;
        Ok(Some(Vocabulary {
            system_prompt: tokenizer.encode(DEFAULT_SYSTEM_PROMPT)?.len(),
            merges: pairs.len(),
            samples: count.samples,
            left_out: count.left_out,
            characters: count.characters,
            tokens,
            tokenizer,
            json,
        }))
    }

    /// Counts the words of all samples.
    fn count(
        &self,
        mut watch: impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Option<Count>, WordsError> {
        let rules = tokenizer(&[], &[])?;
        let mut total = Count::default();
        for (name, reader) in &self.files {
            let samples = samples(reader.as_ref());
            let (mut ledger, mut bad) = (Ledger::default(), 0);
            for first in (0..samples).step_by(AT_ONCE as usize) {
                let numbers = first..samples.min(first + AT_ONCE);
                for one in count(reader.as_ref(), numbers, &rules)? {
                    match one {
                        Ok(one) => {
                            ledger.good();
                            total.add(one)?;
                        }
                        Err(one) => {
                            bad += 1;
                            ledger.enter(&one, name, (bad, samples), self.on_bad)?;
                            total.left_out += 1;
                            // An interrupt is obeyed after these samples.
                            let _ = watch(Event::LeftOut(&one));
                        }
                    }
                }
                if watch(Event::Read(total.samples + total.left_out)).is_break() {
                    return Ok(None);
                }
            }
        }
        Ok(Some(total))
    }
}

impl Count {
    fn add(&mut self, other: Self) -> Result<(), WordsError> {
        for (word, count) in other.words {
            *self.words.entry(word).or_default() += count;
        }
        self.characters += other.characters;
        self.samples += 1;
        if self.words.len() > MAX_WORDS { Err(WordsError::TooMany) } else { Ok(()) }
    }
}

fn samples(reader: &dyn Reader) -> u64 {
    reader.chunks().iter().sum()
}

/// The words of some samples, in their order.
fn count(
    reader: &dyn Reader,
    numbers: Range<u64>,
    rules: &Tokenizer,
) -> Result<Vec<Result<Count, Bad>>, WordsError> {
    let one = |number| match reader.sample(number) {
        Err(why) => Ok(Err(Bad { place: reader.place(number), why })),
        Ok(sample) => words(&sample, rules).map(Ok),
    };
    numbers.into_par_iter().map(one).collect()
}

/// The words of a sample.
fn words(sample: &Sample, rules: &Tokenizer) -> Result<Count, WordsError> {
    let mut count = Count::default();
    for text in texts(sample) {
        count.characters += text.chars().count() as u64;
        let mut splits = PreTokenizedString::from(text);
        if let Some(rule) = rules.get_pre_tokenizer() {
            rule.pre_tokenize(&mut splits)?;
        }
        for (word, ..) in splits.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            let symbols: Vec<char> = word.chars().collect();
            for part in symbols.chunks(MAX_SYMBOLS) {
                *count.words.entry(part.iter().collect()).or_default() += 1;
            }
        }
    }
    Ok(count)
}

/// The texts of a sample with the blanks that the template puts before them.
fn texts(sample: &Sample) -> Vec<String> {
    let (system, turns) = match &sample.content {
        Content::Plain(text) => return vec![text.trim().to_owned()],
        Content::Turns { system, turns } => (system, turns),
    };
    // Drawing has no system text at inference.
    let usual = if sample.kind() == Kind::Draw { "" } else { DEFAULT_SYSTEM_PROMPT };
    let mut texts = vec![system.as_deref().unwrap_or(usual).to_owned()];
    for turn in turns {
        for (number, piece) in turn.pieces.iter().enumerate() {
            let Piece::Text(text) = piece else { continue };
            // Behind a picture a new line begins.
            let blank = if number == 0 { " " } else { "" };
            texts.push(format!("{blank}{}", text.trim()));
        }
    }
    texts
}

/// One character for each byte, in the order of the characters: the byte itself where it can be
/// seen, else one from U+0100 on.
fn alphabet() -> Vec<char> {
    let seen = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let hidden = (0..=255u8).filter(|byte| !seen(byte)).count() as u32;
    let shown = (0..=255u8).filter(seen).map(char::from);
    shown.chain((0x100..0x100 + hidden).filter_map(char::from_u32)).collect()
}

/// A tokenizer by the rules, with these tokens and merges, and Janus' special tokens behind them.
fn tokenizer(tokens: &[String], merges: &[[&String; 2]]) -> Result<Tokenizer, WordsError> {
    let library = |error: serde_json::Error| WordsError::Library(error.to_string());
    let mut rules: Value = serde_json::from_str(RULES).map_err(library)?;
    let vocabulary: HashMap<&String, usize> = tokens.iter().zip(0..).collect();
    rules["model"]["vocab"] = json!(vocabulary);
    rules["model"]["merges"] = json!(merges);
    let added = SPECIAL.iter().zip(tokens.len()..).map(|(token, id)| {
        json!({
            "id": id, "content": token, "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })
    });
    rules["added_tokens"] = added.collect();
    rules["post_processor"] = json!({
        "type": "Sequence", "processors": [rules["post_processor"], begin(tokens.len())],
    });
    let rules = serde_json::to_vec(&rules).map_err(library)?;
    Ok(Tokenizer::from_bytes(&rules)?)
}

/// Puts the begin token first, for readers that do what the file says; this project adds it itself.
fn begin(id: usize) -> Value {
    let begin = json!({"SpecialToken": {"id": BOS, "type_id": 0}});
    let text = |name: &str, kind: u8| json!({"Sequence": {"id": name, "type_id": kind}});
    json!({
        "type": "TemplateProcessing",
        "single": [begin, text("A", 0)],
        "pair": [begin, text("A", 0), text("B", 1)],
        "special_tokens": {BOS: {"id": BOS, "ids": [id], "tokens": [BOS]}},
    })
}
