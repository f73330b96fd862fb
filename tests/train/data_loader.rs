//! Steps: the ratio in each, the order, the way back to a place, and what packing must not change.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use janus_model::processor::{Conversation, Message};
use janus_train::batch::Batch;
use janus_train::data::error::{At, Place, Why};
use janus_train::data::formats::Reader;
use janus_train::data::prepare::Codes;
use janus_train::data::sample::Sample;
use janus_train::data::{
    Cache, Cursor, DataError, Encode, Kind, Loader, Objective, OnBad, Options, Packing, Prepare,
    Shuffle, Source, Spec, Step,
};

use crate::data_common::{CODES, Toy, rgb, save, tokens, write};

/// A file of conversations of one kind, with small pictures.
fn data(folder: &Path, kind: Kind, count: usize) -> PathBuf {
    let mut lines = String::new();
    for n in 0..count {
        let (user, assistant, picture) = match kind {
            Kind::Understand => (format!("<image>What is {n}?"), format!("Picture {n}."), true),
            Kind::Text => (format!("Say {n}."), "word ".repeat(n % 5 + 1), false),
            Kind::Draw => (format!("picture {n}. More words."), "<image>".to_owned(), true),
        };
        let images: Vec<String> =
            picture.then(|| save(folder, 100 * kind as usize + n)).into_iter().collect();
        let line = serde_json::json!({"messages": [
            {"role": "user", "content": user}, {"role": "assistant", "content": assistant}],
            "images": images});
        writeln!(lines, "{line}").unwrap();
    }
    write(folder, &format!("{kind}.jsonl"), lines)
}

const OPTIONS: Options = Options {
    ratio: [1, 1, 2],
    batch: 4,
    rows: 2,
    packing: Packing::Isolated,
    on_bad: OnBad::Stop { share: 0.0, count: 0 },
    workers: 0,
    ahead: 6,
};

/// 5 samples to understand, 7 texts, 9 to draw: epochs end inside steps.
fn sources(folder: &Path, shuffle: Shuffle) -> Vec<Source> {
    let of = |(number, (kind, count)): (usize, (Kind, usize))| {
        let path = folder.join(format!("{kind}.jsonl"));
        let path = if path.exists() { path } else { data(folder, kind, count) };
        Source::open(&Spec::of(path), (number, 1.0), shuffle).unwrap()
    };
    let counts = Kind::ALL.into_iter().zip([5, 7, 9]);
    counts.enumerate().flat_map(of).collect()
}

fn loader(folder: &Path, options: Options, objective: Objective) -> Loader {
    let sources = sources(folder, Shuffle::Seed(11));
    Loader::new(sources, Prepare::new(tokens(objective)), options).unwrap()
}

fn objective() -> Objective {
    Objective { max_tokens: 512, unconditional: 0.3, short_captions: 0.3, ..Objective::default() }
}

fn steps(loader: &mut Loader, count: usize) -> Vec<Step> {
    (0..count).map(|_| loader.next(&mut Toy::default()).unwrap()).collect()
}

fn numbers(steps: &[Step]) -> Vec<&Vec<Batch>> {
    steps.iter().map(|step| &step.batches).collect()
}

fn names(step: &Step) -> Vec<String> {
    step.places
        .iter()
        .map(|place| place.to_string().rsplit('/').next().unwrap().to_owned())
        .collect()
}

#[test]
fn the_ratio_is_in_every_step_and_epochs_are_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut loader = loader(folder.path(), OPTIONS, objective());
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    // Lowest common multiple of the epochs: 5, 7 and 9 / 2 steps.
    for step in steps(&mut loader, 315) {
        let names = names(&step);
        let of = |kind: Kind| names.iter().filter(|n| n.starts_with(&kind.to_string())).count();
        assert_eq!(Kind::ALL.map(of), [1, 1, 2]);
        for name in names {
            *seen.entry(name).or_default() += 1;
        }
    }
    assert_eq!(seen.len(), 21);
    for (name, count) in seen {
        let expected = if name.starts_with("understanding") {
            63
        } else if name.starts_with("text") {
            45
        } else {
            70
        };
        assert_eq!(count, expected, "{name}");
    }
    let epochs: Vec<_> = loader.cursor().sources.iter().map(|s| (s.epoch, s.position)).collect();
    assert_eq!(epochs, [(63, 0), (45, 0), (70, 0)]);
}

#[test]
fn no_thread_changes_anything() {
    let folder = tempfile::tempdir().unwrap();
    let plain = steps(&mut loader(folder.path(), OPTIONS, objective()), 12);
    for (workers, ahead) in [(1, 1), (2, 3), (2, 40)] {
        let options = Options { workers, ahead, ..OPTIONS };
        let found = steps(&mut loader(folder.path(), options, objective()), 12);
        assert_eq!(numbers(&found), numbers(&plain), "{workers} threads, {ahead} ahead");
    }
}

/// T2: the eight steps after a resume, across the end of epochs, with 0 and 2 threads.
#[test]
fn a_resumed_run_goes_on_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let whole = steps(&mut loader(folder.path(), OPTIONS, objective()), 20);
    for stop in [0, 1, 4, 5, 7, 12] {
        let mut first = loader(folder.path(), Options { workers: 2, ..OPTIONS }, objective());
        steps(&mut first, stop);
        let saved = serde_json::to_string(first.cursor()).unwrap();
        drop(first);
        for workers in [0, 2] {
            let mut second = loader(folder.path(), Options { workers, ..OPTIONS }, objective());
            let cursor: Cursor = serde_json::from_str(&saved).unwrap();
            second.seek(&cursor, false).unwrap();
            let rest = steps(&mut second, 8);
            assert_eq!(numbers(&rest), numbers(&whole[stop..stop + 8]), "{stop} {workers}");
            assert_eq!(rest[0].number, stop as u64);
        }
    }
}

#[test]
fn seeds_differ_and_files_can_be_read_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let order = |shuffle| {
        let sources = sources(folder.path(), shuffle);
        let prepare = Prepare::new(tokens(objective()));
        let mut loader = Loader::new(sources, prepare, OPTIONS).unwrap();
        steps(&mut loader, 4).iter().flat_map(names).collect::<Vec<_>>()
    };
    assert_ne!(order(Shuffle::Seed(1)), order(Shuffle::Seed(2)));
    assert_eq!(
        order(Shuffle::Off)[..4],
        ["understanding.jsonl:1", "text.jsonl:1", "drawing.jsonl:1", "drawing.jsonl:2"]
    );
}

/// Each document of a batch, wherever it lies: ids, positions, what is learnt, codes, pixels.
fn documents(batch: &Batch) -> Vec<String> {
    let mut found: BTreeMap<(i32, i32), Vec<usize>> = BTreeMap::new();
    for (place, document) in batch.documents.iter().enumerate().filter(|(_, d)| **d >= 0) {
        found.entry(((place / batch.tokens) as i32, *document)).or_default().push(place);
    }
    let describe = |places: Vec<usize>| {
        let (first, last) = (places[0] as i32, places[places.len() - 1] as i32);
        let inside = |place: i32| (first..=last).contains(&place);
        let ids: Vec<i32> = places.iter().map(|p| batch.ids[*p]).collect();
        let positions: Vec<i32> = places.iter().map(|p| batch.positions[*p]).collect();
        assert_eq!(positions, (0..places.len() as i32).collect::<Vec<_>>());
        let targets = |all: &[janus_train::batch::Target]| {
            let own = all.iter().filter(|t| inside(t.place)).map(|t| (t.place - first, t.id));
            own.collect::<Vec<_>>()
        };
        let read = batch.code_places.iter().zip(&batch.codes).filter(|(p, _)| inside(**p));
        let read: Vec<_> = read.map(|(p, c)| (p - first, *c)).collect();
        let seen = batch.image_places.iter().position(|place| inside(*place));
        let side = batch.pixels.len() / (batch.image_places.len() / 144).max(1);
        let pixel = seen.map(|at| batch.pixels[at / 144 * side + 77]);
        let (text, codes) = (targets(&batch.text_targets), targets(&batch.code_targets));
        format!("{ids:?} {text:?} {codes:?} {read:?} {pixel:?}")
    };
    found.into_values().map(describe).collect()
}

#[test]
fn packing_changes_the_rows_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let of = |packing, rows| {
        let options = Options { packing, rows, batch: 8, ..OPTIONS };
        steps(&mut loader(folder.path(), options, objective()), 6)
    };
    let (packed, alone) = (of(Packing::Isolated, 3), of(Packing::Off, 1));
    for (packed, alone) in packed.iter().zip(&alone) {
        let all = |step: &Step| {
            let mut all: Vec<String> = step.batches.iter().flat_map(documents).collect();
            all.sort();
            all
        };
        assert_eq!(all(packed).len(), 8);
        assert_eq!(all(packed), all(alone));
        assert_eq!(packed.supervised(), alone.supervised());
        assert!(packed.batches.iter().map(|b| b.rows).sum::<usize>() < 8);
        assert!(packed.batches.iter().all(|b| b.tokens <= 512));
    }
    let joined = of(Packing::Joined, 3);
    for (joined, packed) in joined.iter().zip(&packed) {
        for (joined, packed) in joined.batches.iter().zip(&packed.batches) {
            let same = Batch {
                positions: packed.positions.clone(),
                documents: packed.documents.clone(),
                ..joined.clone()
            };
            assert_eq!(&same, packed);
            for row in 0..joined.rows {
                let row = row * joined.tokens..(row + 1) * joined.tokens;
                let used = joined.documents[row.clone()].iter().filter(|d| **d == 0).count();
                let expected: Vec<i32> = (0..used as i32).collect();
                assert_eq!(joined.positions[row][..used], expected);
            }
        }
    }
}

/// Every place that a batch names lies inside it, is one kind of place, and fits its neighbours.
#[test]
fn batches_are_consistent() {
    let folder = tempfile::tempdir().unwrap();
    for packing in [Packing::Off, Packing::Isolated, Packing::Joined] {
        let options = Options { packing, batch: 8, ..OPTIONS };
        for step in steps(&mut loader(folder.path(), options, objective()), 5) {
            for batch in step.batches {
                let size = batch.rows * batch.tokens;
                assert_eq!(
                    [batch.ids.len(), batch.positions.len(), batch.documents.len()],
                    [size; 3]
                );
                assert_eq!(batch.codes.len(), batch.code_places.len());
                assert_eq!(batch.pixels.len(), batch.image_places.len() / 144 * 3 * 96 * 96);
                let filled: BTreeSet<i32> =
                    batch.image_places.iter().chain(&batch.code_places).copied().collect();
                assert_eq!(filled.len(), batch.image_places.len() + batch.code_places.len());
                assert!(filled.iter().all(|p| batch.ids[*p as usize] == 562));
                for target in &batch.text_targets {
                    let next = target.place as usize + 1;
                    assert_eq!(batch.ids[next], target.id);
                    assert_eq!(batch.documents[next], batch.documents[next - 1]);
                }
                let drawn = batch.code_targets.len() / CODES;
                assert_eq!(batch.codes.len(), drawn * (CODES - 1));
                for picture in batch.code_targets.chunks(CODES) {
                    assert_eq!(batch.ids[picture[0].place as usize], 563);
                }
            }
        }
    }
}

#[test]
fn dropout_is_what_was_asked_for_and_another_in_each_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let hidden = |probability: f64, count| {
        let objective = Objective { unconditional: probability, ..objective() };
        let options =
            Options { ratio: [0, 0, 1], batch: 9, packing: Packing::Off, rows: 9, ..OPTIONS };
        let sources = sources(folder.path(), Shuffle::Seed(3)).into_iter();
        let sources = sources.filter(|source| source.kind() == Kind::Draw).collect();
        let prepare = Prepare::new(tokens(objective));
        let mut loader = Loader::new(sources, prepare, options).unwrap();
        let hidden = |step: &Step| {
            let batch = &step.batches[0];
            // A prompt that is shown has the user's token as its second.
            (0..batch.rows).filter(|row| batch.ids[row * batch.tokens + 1] == 562).count()
        };
        steps(&mut loader, count).iter().map(hidden).collect::<Vec<_>>()
    };
    assert_eq!(hidden(0.0, 3), [0; 3]);
    assert_eq!(hidden(1.0, 3), [9; 3]);
    let some = hidden(0.1, 40);
    let sum: usize = some.iter().sum();
    // 360 draws: mean 36, deviation 5.7.
    assert!((8..=64).contains(&sum), "{sum}");
    assert!(some.iter().collect::<BTreeSet<_>>().len() > 1);
}

#[test]
fn pictures_are_prepared_as_at_inference() {
    let folder = tempfile::tempdir().unwrap();
    let spec = Spec::of(data(folder.path(), Kind::Understand, 3));
    let source = Source::open(&spec, (0, 1.0), Shuffle::Off).unwrap().remove(0);
    let prepare = Prepare::new(tokens(Objective::exact(512)));
    for number in 0..3 {
        let found = prepare.sample(&source, 0, number as u64).unwrap();
        let asked = Message::user_with_places(&format!("<image>What is {number}?"), 0);
        let picture = rgb(100 * Kind::Understand as usize + number);
        let input =
            prepare.tokens.processor.understand(&Conversation::new(vec![asked]), &[picture]);
        // To the bit.
        assert_eq!(found.pixels.concat(), input.unwrap().pixels);
    }
    let spec = Spec::of(data(folder.path(), Kind::Draw, 1));
    let source = Source::open(&spec, (0, 1.0), Shuffle::Off).unwrap().remove(0);
    let found = prepare.sample(&source, 0, 0).unwrap();
    let expected =
        prepare.tokens.processor.image.generation_pixels(&rgb(100 * Kind::Draw as usize));
    let Codes::Wanted { key: None, pixels } = &found.codes[0] else { panic!("no cache") };
    assert_eq!(pixels, &expected);
}

/// Sources and answers of editing are whole pictures, so that they lie upon each other.
#[test]
fn edited_pictures_are_prepared_as_at_inference() {
    let folder = tempfile::tempdir().unwrap();
    let images = [save(folder.path(), 1), save(folder.path(), 2)];
    let line = serde_json::json!({"images": images, "messages": [
        {"role": "user", "content": "<image>Make it red."},
        {"role": "assistant", "content": "<image>"},
    ]});
    let spec = Spec::of(write(folder.path(), "edits.jsonl", format!("{line}\n")));
    let source = Source::open(&spec, (0, 1.0), Shuffle::Off).unwrap().remove(0);
    let prepare = Prepare::new(tokens(Objective::exact(512)));
    let rules = prepare.tokens.processor.image.clone();
    let found = prepare.sample(&source, 0, 0).unwrap();
    assert_eq!(found.pixels[0], rules.understanding_pixels(&rgb(1)).data);
    let wanted: Vec<_> = [1, 2].map(|number| rules.editing_pixels(&rgb(number))).to_vec();
    let pixels = found.codes.iter().map(|codes| match codes {
        Codes::Wanted { pixels, .. } => pixels.clone(),
        Codes::Known(_) => panic!("no cache"),
    });
    assert_eq!(pixels.collect::<Vec<_>>(), wanted);
    assert_ne!(wanted[0], rules.generation_pixels(&rgb(1)), "these are cut");
}

#[test]
fn codes_are_computed_once_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let plain = steps(&mut loader(folder.path(), OPTIONS, objective()), 9);
    let cached = |toy: &mut Toy| {
        let cache = Cache::open(&folder.path().join("codes"), toy.fingerprint(), CODES).unwrap();
        let prepare = Prepare { cache: Some(Arc::new(cache)), ..Prepare::new(tokens(objective())) };
        let sources = sources(folder.path(), Shuffle::Seed(11));
        let options = Options { workers: 2, ahead: 4, ..OPTIONS };
        let mut loader = Loader::new(sources, prepare, options).unwrap();
        (0..9).map(|_| loader.next(toy).unwrap()).collect::<Vec<_>>()
    };
    let (mut first, mut second) = (Toy::default(), Toy::default());
    assert_eq!(numbers(&cached(&mut first)), numbers(&plain));
    // Nine pictures, twice over; a few may be prepared before their codes are kept.
    assert!((9..=14).contains(&first.pictures), "{}", first.pictures);
    assert_eq!(numbers(&cached(&mut second)), numbers(&plain));
    assert_eq!(second.pictures, 0);
}

/// An image tokenizer that does not do its work.
struct Broken(Result<Vec<Vec<i32>>, String>);

impl Encode for Broken {
    fn fingerprint(&self) -> [u8; 32] {
        [0; 32]
    }

    fn encode(
        &mut self,
        _: &[janus_model::processor::PixelValues],
    ) -> Result<Vec<Vec<i32>>, String> {
        self.0.clone()
    }
}

#[test]
fn a_failed_step_leaves_the_cursor_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    for workers in [0, 2] {
        let options = Options { workers, ..OPTIONS };
        let whole = steps(&mut loader(folder.path(), options, objective()), 3);
        let mut loader = loader(folder.path(), options, objective());
        steps(&mut loader, 1);
        let before = loader.cursor().clone();
        for broken in [Err("no memory".to_owned()), Ok(vec![vec![1; 5]; 2]), Ok(vec![])] {
            let error = loader.next(&mut Broken(broken)).unwrap_err();
            assert!(matches!(error, DataError::Encode { .. }), "{error}");
            assert_eq!(loader.cursor(), &before);
        }
        assert_eq!(numbers(&steps(&mut loader, 2)), numbers(&whole[1..]));
    }
}

#[test]
fn weights_inside_a_kind_are_held() {
    let folder = tempfile::tempdir().unwrap();
    let (real, synthetic) = (folder.path().join("real"), folder.path().join("synthetic"));
    let open = |(number, (path, weight)): (usize, (&PathBuf, f64))| {
        std::fs::create_dir_all(path).unwrap();
        let path = data(path, Kind::Draw, 6);
        Source::open(&Spec::of(path), (number, weight), Shuffle::Seed(1)).unwrap()
    };
    let sources = [(&real, 3.0), (&synthetic, 1.0)].into_iter().enumerate().flat_map(open);
    let options = Options { ratio: [0, 0, 1], ..OPTIONS };
    let prepare = Prepare::new(tokens(objective()));
    let mut loader = Loader::new(sources.collect(), prepare, options).unwrap();
    for step in steps(&mut loader, 5) {
        let real = step.places.iter().filter(|p| p.file.starts_with(&real)).count();
        assert_eq!(real, 3);
    }
}

#[test]
fn conversations_are_sorted_by_what_they_hold() {
    let folder = tempfile::tempdir().unwrap();
    let kinds = [Kind::Draw, Kind::Text, Kind::Understand, Kind::Draw];
    let mixed: String = kinds
        .iter()
        .enumerate()
        .map(|(n, kind)| {
            let path = data(folder.path(), *kind, n + 1);
            std::fs::read_to_string(path).unwrap().lines().last().unwrap().to_owned() + "\n"
        })
        .collect();
    let path = write(folder.path(), "mixed.jsonl", mixed + "{broken\n");
    let open = |kind| Source::open(&Spec { kind, ..Spec::of(&path) }, (0, 1.0), Shuffle::Off);
    let found: Vec<_> = open(None).unwrap().iter().map(|s| (s.kind(), s.len())).collect();
    // The broken line counts among the most frequent kind.
    assert_eq!(found, [(Kind::Understand, 1), (Kind::Text, 1), (Kind::Draw, 3)]);
    let stated = open(Some(Kind::Draw)).unwrap();
    assert_eq!((stated.len(), stated[0].len()), (1, 5));
    let error = stated[0].sample(1).unwrap_err().to_string();
    assert_eq!(error, "a sample for text in a source for drawing");
}

/// A format of its own that gives up on one sample.
#[derive(Debug)]
struct Panics;

impl Reader for Panics {
    fn chunks(&self) -> Vec<u64> {
        vec![6]
    }

    fn sample(&self, index: u64) -> Result<Sample, Why> {
        assert_ne!(index, 3, "on purpose");
        Ok(Sample::plain(format!("sample {index}")))
    }

    fn place(&self, index: u64) -> Place {
        Place { file: Path::new("own").into(), at: At::Row(index + 1) }
    }

    fn fingerprint(&self) -> [u8; 32] {
        [0; 32]
    }

    fn kind(&self) -> Option<Kind> {
        Some(Kind::Text)
    }
}

#[test]
fn a_thread_that_panics_ends_the_step_and_not_the_process() {
    let source = Source::of(Arc::new(Panics), "own".to_owned(), Kind::Text, (0, 1.0), Shuffle::Off);
    let options = Options { ratio: [0, 1, 0], batch: 2, workers: 2, ..OPTIONS };
    let prepare = Prepare::new(tokens(objective()));
    let mut loader = Loader::new(vec![source], prepare, options).unwrap();
    assert_eq!(names(&steps(&mut loader, 1)[0]), ["own: row 1", "own: row 2"]);
    let error = loader.next(&mut Toy::default()).unwrap_err().to_string();
    assert_eq!(error, "a thread that prepares samples stopped at own: row 4");
}
