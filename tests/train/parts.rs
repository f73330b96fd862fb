//! Recipes of networks that are trained apart: read strictly, described without loading anything.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use burn::tensor::Device;
use janus_model::config::Dialect;
use janus_model::{ErrorKind, JanusConfig};
use janus_train::config::TrainConfig;
use janus_train::data::error::Why;
use janus_train::data::{DataError, OnBad, Shuffle, Spec, Stream};
use janus_train::fields::FieldsConfig;
use janus_train::parts::{self, Description, Part, PartError, describe, part_of};
use janus_train::tokenizer::TokenizerConfig;

use crate::parts_common::{model, pictures, recipe};

/// A folder with the sizes of the published 1B.
fn published(folder: &Path) -> String {
    let sizes = folder.join("sizes");
    fs::create_dir_all(&sizes).unwrap();
    let json = JanusConfig::pro_1b().to_json(Dialect::Original, "float32", None);
    fs::write(sizes.join("config.json"), json).unwrap();
    format!("model={}", sizes.display())
}

fn described(folder: &Path, name: &str, more: &[&str]) -> Description {
    let data = format!("data.0.path={}", pictures(folder, 6).display());
    let mut overrides = vec![published(folder), data];
    overrides.extend(more.iter().map(|text| (*text).to_owned()));
    describe(&recipe(folder, name), &overrides, &Device::flex()).unwrap()
}

#[test]
fn recipes_say_which_part_they_train() {
    let folder = tempfile::tempdir().unwrap();
    let of = |name| part_of(&recipe(folder.path(), name)).unwrap();
    assert_eq!(of("tokenizer"), Some(Part::Tokenizer));
    assert_eq!(of("encoder"), Some(Part::Encoder));
    let stage = folder.path().join("stage.toml");
    fs::write(&stage, janus_train::config::RECIPES[0].1).unwrap();
    assert_eq!(part_of(&stage).unwrap(), None);
    let error = describe(&stage, &[], &Device::flex()).unwrap_err();
    assert!(matches!(error, PartError::NoPart), "{error}");
    fs::write(&stage, "part = \"decoder\"").unwrap();
    let error = part_of(&stage).unwrap_err().to_string();
    assert!(error.contains("line 1: part: unknown variant `decoder`"), "{error}");
    assert_eq!(parts::RECIPES.len(), 2);
}

/// They lie beside the program, and are read by whoever trains with them.
#[test]
fn recipes_of_janus_tiny_and_of_the_claims_can_be_read() {
    let tiny = ["encoder", "stage1", "stage2", "stage3", "tiles", "tokenizer", "words"];
    assert_eq!(recipes("tiny", &["sizes"]), tiny);
    assert_eq!(recipes("claims", &["small"]), ["joint", "stage1"]);
}

/// Names of the recipes in a folder, all of which can be read; `sizes` are no recipes.
fn recipes(folder: &str, sizes: &[&str]) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes").join(folder);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if path.extension().is_none_or(|end| end != "toml") || sizes.contains(&&*name) {
            continue;
        }
        match part_of(&path).unwrap() {
            Some(Part::Tokenizer) => drop(TokenizerConfig::read(&path, &[]).unwrap()),
            Some(Part::Fields) => drop(FieldsConfig::read(&path, &[]).unwrap()),
            Some(Part::Encoder) => panic!("{name}: nothing here has pairs"),
            None => drop(TrainConfig::read(&path).unwrap()),
        }
        names.push(name);
    }
    names.sort();
    names
}

/// Parameters of the published networks, without the usage buffer and the pooling head.
#[test]
fn a_description_counts_what_would_train() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = described(folder.path(), "tokenizer", &[]);
    let counts: Vec<_> =
        tokenizer.networks.iter().map(|n| (n.name.as_str(), n.parameters, n.kept)).collect();
    // The critic: 3·64·16+64, 64·128·16+256, 128·256·16+512, 256·512·16+1024, 512·16+1.
    let critic = 3136 + 131_328 + 524_800 + 2_098_176 + 8193;
    assert_eq!(counts, [("gen_vision_model", 71_883_403, true), ("critic", critic, false)]);
    assert_eq!((tokenizer.steps, tokenizer.samples, tokenizer.data), (400_000, 128, 6));
    let trained = 71_883_403 + critic;
    assert_eq!(tokenizer.memory.weights, 4 * trained);
    assert_eq!(tokenizer.memory.gradients, 8 * trained, "a sum, and what is added to it");
    assert_eq!(tokenizer.memory.optimizer, 8 * trained);
    assert_eq!(tokenizer.checkpoint, 12 * trained);
    assert!(tokenizer.memory.total() > tokenizer.memory.activations);
    let average = described(folder.path(), "tokenizer", &["average=0.999", "loss.adversarial=0"]);
    assert_eq!(average.memory.weights, 4 * 2 * 71_883_403);

    let encoder = described(folder.path(), "encoder", &["batch.size=64"]);
    let vision = &encoder.networks[0];
    assert_eq!((vision.name.as_str(), vision.parameters), ("vision_model", 303_688_704));
    assert!(vision.kept && !encoder.networks[1].kept);
    // Words, positions, twelve blocks, last norm, head; pool; t and b.
    let text = 102_400 * 768 + 64 * 768 + 12 * 7_087_872 + 1536 + (768 * 1024 + 1024);
    let pool = 1024 + 4 * (1024 * 1024 + 1024) + 2048 + (2 * 1024 * 4096 + 4096 + 1024);
    assert_eq!(encoder.networks[1].parameters, text + pool + 2);
    assert_eq!(encoder.memory.gradients, 4 * (303_688_704 + text + pool + 2));
}

#[test]
fn recipes_are_read_strictly() {
    let folder = tempfile::tempdir().unwrap();
    let data = format!("data.0.path={}", pictures(folder.path(), 2).display());
    let model = format!("model={}", model().display());
    for name in ["tokenizer", "encoder"] {
        let path = recipe(folder.path(), name);
        let refused = |overrides: &[&str]| {
            let all: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
            let error = describe(&path, &all, &Device::flex()).unwrap_err();
            (error.kind(), error.to_string())
        };
        let (kind, text) = refused(&[&model, &data, "schedule.rat=1"]);
        assert_eq!(kind, ErrorKind::Usage);
        assert!(text.starts_with("schedule.rat=1: unknown field `rat`"), "{text}");
        let (kind, text) = refused(&[&model]);
        assert_eq!((kind, text.as_str()), (ErrorKind::Config, "data: there is no source"));
        for (change, expected) in [
            ("steps=0", "steps is 0, but must be between 1 and 1000000000"),
            ("batch.rows=0", "batch.rows is 0, but must be between 1 and "),
            ("save.keep=1", "save.keep is 1, but must be at least 2, or 0 for all"),
            ("optimizer.beta2=1.0", "optimizer.beta2 is 1, but must be at least 0 and below 1"),
            ("guard.window=1", "guard.window is 1, but must be between 8 and"),
            ("data.0.weight=0.0", "data.0.weight is 0, but must be a number above 0"),
            ("valid.patience=1", "valid.patience needs valid.data"),
            ("name=\"a/b\"", "name is \"a/b\", but must be a plain name for a folder"),
        ] {
            let (kind, text) = refused(&[&model, &data, change]);
            assert_eq!(kind, ErrorKind::Config, "{text}");
            assert!(text.starts_with(expected), "{text}");
        }
        // Nothing to learn from, and no model.
        let nowhere = format!("data.0.path={}", folder.path().join("nowhere").display());
        assert_eq!(refused(&[&model, &nowhere]).0, ErrorKind::Missing);
        let nowhere = format!("model={}", folder.path().join("nowhere").display());
        assert_eq!(refused(&[&nowhere, &data]).0, ErrorKind::Missing);
    }
}

fn stream(folder: &Path, weights: [f64; 2], on_bad: OnBad) -> Stream {
    let more = folder.join("more");
    fs::create_dir_all(&more).unwrap();
    let specs = [Spec::of(pictures(folder, 6)), Spec::of(pictures(&more, 12))];
    let specs: Vec<_> = specs.into_iter().zip(weights).collect();
    Stream::open(&specs, Shuffle::Seed(3), on_bad).unwrap()
}

/// What chance gives to each of the next samples, and how many pictures it has.
fn next(stream: &mut Stream, count: usize) -> Vec<(u64, usize)> {
    stream.next(count, |sample, chance| Ok((chance, sample.pictures.len()))).unwrap()
}

#[test]
fn a_stream_goes_on_where_its_cursor_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut whole = stream(folder.path(), [1.0, 2.0], OnBad::default());
    assert_eq!((whole.len(), whole.is_empty()), (18, false));
    let all: Vec<_> = (0..8).flat_map(|_| next(&mut whole, 6)).collect();
    // Two epochs and more: every sample has another chance in each.
    let distinct: BTreeSet<_> = all.iter().collect();
    assert_eq!((all.len(), distinct.len()), (48, 48));
    let taken: Vec<u64> = whole.cursor().sources.iter().map(|source| source.taken).collect();
    assert_eq!((taken, whole.cursor().step), (vec![16, 32], 8));

    let mut first = stream(folder.path(), [1.0, 2.0], OnBad::default());
    let mut found: Vec<_> = (0..5).flat_map(|_| next(&mut first, 6)).collect();
    let mut second = stream(folder.path(), [1.0, 2.0], OnBad::default());
    second.seek(first.cursor(), false).unwrap();
    found.extend((0..3).flat_map(|_| next(&mut second, 6)));
    assert_eq!(found, all);
    // Other data are refused, unless somebody wants them.
    fs::remove_file(folder.path().join("more/data/03.png")).unwrap();
    fs::remove_file(folder.path().join("more/data/03.txt")).unwrap();
    let specs = [folder.path().join("data"), folder.path().join("more/data")];
    let specs: Vec<_> = specs.map(|path| (Spec::of(path), 1.0)).into();
    let mut changed = Stream::open(&specs, Shuffle::Seed(3), OnBad::default()).unwrap();
    assert!(matches!(changed.seek(first.cursor(), false), Err(DataError::Changed { .. })));
    changed.seek(first.cursor(), true).unwrap();
}

#[test]
fn bad_samples_are_left_out_named_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let some = |chance: u64| {
        if chance.is_multiple_of(3) { Err(Why::Empty("the caption")) } else { Ok(chance) }
    };
    let mut lenient = stream(folder.path(), [1.0, 1.0], OnBad::Skip);
    let good = lenient.next(20, |_, chance| some(chance)).unwrap();
    assert_eq!(good.len(), 20);
    let left_out = lenient.take_left_out();
    assert!(!left_out.is_empty() && left_out[0].ends_with("the caption is empty"), "{left_out:?}");
    assert!(lenient.take_left_out().is_empty());
    let taken: u64 = lenient.cursor().sources.iter().map(|source| source.taken).sum();
    assert_eq!(taken, 20, "bad ones do not count");
    // The budget of one in a thousand is none of 18; the cursor stays where it was.
    let mut strict = stream(folder.path(), [1.0, 1.0], OnBad::default());
    let before = strict.cursor().clone();
    let error = strict.next(20, |_, chance| some(chance)).unwrap_err();
    assert!(matches!(error, DataError::TooManyBad { .. }), "{error}");
    assert_eq!(*strict.cursor(), before);
    // A source of nothing else ends, however lenient.
    let error = lenient.next(1, |_, _| Err::<(), _>(Why::Empty("the caption"))).unwrap_err();
    assert!(matches!(error, DataError::AllBad { .. }), "{error}");
}
