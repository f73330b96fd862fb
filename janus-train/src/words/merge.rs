//! Byte-pair encoding, learnt: the two neighbours that stand side by side most often become one
//! token, again and again.
//!
//! Written here because the trainer of the `tokenizers` crate goes through hash maps with a seed of
//! their own: where counts are equal its result may differ from run to run. Of pairs that are
//! equally frequent, this takes the one with the smallest ids.
//!
//! Source: R. Sennrich et al., Neural Machine Translation of Rare Words with Subword Units (2016).

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};

/// Two tokens side by side.
pub(super) type Pair = (u32, u32);

/// Rarer pairs are no pattern.
const RAREST: u64 = 2;

/// A word of the text as tokens, and how often it occurs.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub tokens: Vec<u32>,
    pub count: u64,
}

/// What was learnt.
#[derive(Debug)]
pub(super) struct Merges {
    /// Every token as a string, by id.
    pub tokens: Vec<String>,
    /// Which two become one, in order.
    pub pairs: Vec<Pair>,
}

/// Counts of pairs, and the words in which they stand.
struct Pairs {
    counts: HashMap<Pair, u64>,
    /// Words in which a pair has stood; it may be gone, and a word may be there twice.
    places: HashMap<Pair, Vec<u32>>,
    /// Most frequent first, then smallest ids. A count that is no longer true is put right when it
    /// comes up.
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
}

/// Merges pairs until there are `size` tokens, or no pair occurs twice. The words end as the tokens
/// that they are encoded as.
pub(super) fn merge(alphabet: Vec<String>, words: &mut [Word], size: usize) -> Merges {
    let mut ids: HashMap<String, u32> =
        alphabet.iter().enumerate().map(|(id, token)| (token.clone(), id as u32)).collect();
    let mut learnt = Merges { tokens: alphabet, pairs: Vec::new() };
    let mut ranks = Ranks::new();
    let mut pairs = Pairs::of(words);
    while learnt.tokens.len() < size {
        let Some(pair) = pairs.most_frequent() else { break };
        let token = [pair.0, pair.1].map(|id| learnt.tokens[id as usize].as_str()).concat();
        // The same string can come about in two ways: "a" + "bc" and "ab" + "c".
        let id = *ids.entry(token.clone()).or_insert(learnt.tokens.len() as u32);
        if id as usize == learnt.tokens.len() {
            learnt.tokens.push(token);
        }
        ranks.insert(pair, (learnt.pairs.len(), id));
        learnt.pairs.push(pair);
        pairs.join(pair, &ranks, words);
    }
    learnt
}

/// When a pair was learnt, and what becomes of it.
type Ranks = HashMap<Pair, (usize, u32)>;

impl Pairs {
    fn of(words: &[Word]) -> Self {
        let mut pairs =
            Self { counts: HashMap::new(), places: HashMap::new(), queue: BinaryHeap::new() };
        for (number, word) in words.iter().enumerate() {
            pairs.add(number as u32, word, &[]);
        }
        pairs.queue = pairs.counts.iter().map(|(pair, count)| (*count, Reverse(*pair))).collect();
        pairs
    }

    /// For every pair there is an entry with its count, or with one that is too high.
    fn most_frequent(&mut self) -> Option<Pair> {
        while let Some((stated, Reverse(pair))) = self.queue.pop() {
            let count = self.counts.get(&pair).copied().unwrap_or(0);
            if count == stated && count >= RAREST {
                return Some(pair);
            }
            if count >= RAREST && count < stated {
                self.queue.push((count, Reverse(pair)));
            }
        }
        None
    }

    /// Encodes the words with a pair anew, now that it is one token.
    fn join(&mut self, pair: Pair, ranks: &Ranks, words: &mut [Word]) {
        let mut grown = BTreeSet::new();
        for number in self.places.remove(&pair).unwrap_or_default() {
            let word = &mut words[number as usize];
            let before: Vec<Pair> = neighbours(&word.tokens).collect();
            for old in &before {
                if let Some(count) = self.counts.get_mut(old) {
                    *count -= word.count;
                }
            }
            encode(&mut word.tokens, ranks);
            self.add(number, word, &before);
            grown.extend(neighbours(&word.tokens).filter(|new| !before.contains(new)));
        }
        self.counts.remove(&pair);
        let entry = |pair: Pair| Some((*self.counts.get(&pair)?, Reverse(pair)));
        self.queue.extend(grown.into_iter().filter_map(entry));
    }

    /// Enters all pairs of a word, in which some have stood `before`.
    fn add(&mut self, number: u32, word: &Word, before: &[Pair]) {
        for pair in neighbours(&word.tokens) {
            *self.counts.entry(pair).or_default() += word.count;
            let places = self.places.entry(pair).or_default();
            if places.last() != Some(&number) && !before.contains(&pair) {
                places.push(number);
            }
        }
    }
}

fn neighbours(tokens: &[u32]) -> impl Iterator<Item = Pair> {
    tokens.windows(2).map(|two| (two[0], two[1]))
}

/// As a tokenizer does it: what was learnt first is joined first, the leftmost first among equals.
fn encode(tokens: &mut Vec<u32>, ranks: &Ranks) {
    loop {
        let known = neighbours(tokens).enumerate();
        let known = known.filter_map(|(place, pair)| Some((ranks.get(&pair)?, place)));
        let Some((&(_, id), place)) = known.min() else { return };
        tokens[place] = id;
        tokens.remove(place + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::random::hash;

    fn letters(words: &[(&str, u64)]) -> (Vec<String>, Vec<Word>) {
        let alphabet: Vec<String> = ('a'..='z').map(String::from).collect();
        let word = |(text, count): &(&str, u64)| Word {
            tokens: text.bytes().map(|byte| u32::from(byte - b'a')).collect(),
            count: *count,
        };
        (alphabet, words.iter().map(word).collect())
    }

    /// Encodes and counts everything anew for each pair: slow and plainly right.
    fn slowly(alphabet: &[String], words: &[Word], size: usize) -> Merges {
        let mut learnt = Merges { tokens: alphabet.to_vec(), pairs: Vec::new() };
        let mut ranks = Ranks::new();
        while learnt.tokens.len() < size {
            let mut counts: HashMap<Pair, u64> = HashMap::new();
            for word in words {
                let mut tokens = word.tokens.clone();
                encode(&mut tokens, &ranks);
                neighbours(&tokens).for_each(|pair| *counts.entry(pair).or_default() += word.count);
            }
            let best = counts.into_iter().max_by_key(|(pair, count)| (*count, Reverse(*pair)));
            let Some((pair, _)) = best.filter(|(_, count)| *count >= RAREST) else { break };
            let token = [pair.0, pair.1].map(|id| learnt.tokens[id as usize].clone()).concat();
            let known = learnt.tokens.iter().position(|old| *old == token);
            let id = known.unwrap_or(learnt.tokens.len()) as u32;
            if known.is_none() {
                learnt.tokens.push(token);
            }
            ranks.insert(pair, (learnt.pairs.len(), id));
            learnt.pairs.push(pair);
        }
        learnt
    }

    #[test]
    fn the_most_frequent_pair_comes_first() {
        let (alphabet, mut words) = letters(&[("low", 5), ("lower", 2), ("newest", 6), ("aaa", 9)]);
        let learnt = merge(alphabet, &mut words, 31);
        assert_eq!(learnt.tokens[26..], ["aa", "aaa", "we", "lo", "ewe"].map(String::from)[..]);
        assert_eq!((learnt.pairs[0], words[3].tokens.as_slice()), ((0, 0), &[27][..]));
    }

    #[test]
    fn pairs_that_occur_once_are_left_alone() {
        let (alphabet, mut words) = letters(&[("ab", 2), ("cd", 1)]);
        assert_eq!(merge(alphabet, &mut words, 100).tokens[26..], ["ab".to_owned()]);
    }

    /// Words over few letters have many ways to the same token.
    #[test]
    fn counts_stay_true() {
        for seed in 0..40u64 {
            let word = |n: u64| -> String {
                let letter = |place| char::from(b'a' + (hash(&[seed, n, place]) % 3) as u8);
                (0..2 + hash(&[seed, n]) % 9).map(letter).collect()
            };
            let texts: Vec<(String, u64)> = (0..60).map(|n| (word(n), 1 + n % 5)).collect();
            let texts: Vec<(&str, u64)> = texts.iter().map(|(t, n)| (t.as_str(), *n)).collect();
            let (alphabet, mut words) = letters(&texts);
            let expected = slowly(&alphabet, &words, 120);
            let found = merge(alphabet, &mut words, 120);
            assert_eq!((found.tokens, &found.pairs), (expected.tokens, &expected.pairs), "{seed}");
            let unique: BTreeSet<&Pair> = found.pairs.iter().collect();
            assert_eq!(unique.len(), found.pairs.len(), "{seed}");
        }
    }
}
