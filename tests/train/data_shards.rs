//! The twin of the fuzz target `tar_sample`: its invariants over its seeds, whole and changed.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proptest::prelude::*;

#[path = "../../fuzz/src/shard.rs"]
mod shard;

/// Name and bytes of every seed, in order.
static SEEDS: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/tar_sample");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let seed = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read(path).unwrap())
    };
    paths.iter().map(seed).collect()
});

/// Samples of a shard that can be used.
fn held(bytes: &[u8]) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shard.tar");
    std::fs::write(&path, bytes).unwrap();
    shard::hold(&path, bytes)
}

/// Good seeds give two samples; of a bad one the first sample, which is always good, is left, and
/// where its key comes again what stands between.
#[test]
fn every_seed_holds() {
    assert!(SEEDS.len() >= 35, "{}", SEEDS.len());
    for (name, bytes) in SEEDS.iter() {
        let expected = match name.as_str() {
            "d3-empty" => 0,
            "d3-key-twice" => 2,
            name if name.starts_with("ok") => 2,
            _ => 1,
        };
        assert_eq!(held(bytes), expected, "{name}");
    }
}

/// A change of a seed.
#[derive(Clone, Debug)]
enum Change {
    /// A byte becomes another.
    Byte(prop::sample::Index, u8),
    /// A block of 512 goes to another place.
    Move(prop::sample::Index, prop::sample::Index),
    /// Everything behind goes.
    Cut(prop::sample::Index),
    /// Another seed follows.
    Append(prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        8 => (index(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        2 => (index(), index()).prop_map(|(from, to)| Change::Move(from, to)),
        1 => index().prop_map(Change::Cut),
        1 => index().prop_map(Change::Append),
    ]
}

fn changed(mut bytes: Vec<u8>, change: &Change) -> Vec<u8> {
    const BLOCK: usize = 512;
    let length = bytes.len();
    match change {
        Change::Append(other) => bytes.extend(&SEEDS[other.index(SEEDS.len())].1),
        _ if length == 0 => {}
        // Mostly in headers: names, sizes and kinds lie in the first half of a block.
        Change::Byte(at, byte) => {
            let at = at.index(length);
            let at = if byte % 2 == 0 { at - at % BLOCK + at % 160 } else { at };
            bytes[at.min(length - 1)] = *byte;
        }
        Change::Move(from, to) if length >= BLOCK => {
            let [from, to] = [from, to].map(|index| index.index(length / BLOCK) * BLOCK);
            bytes.copy_within(from..from + BLOCK, to);
        }
        Change::Move(..) => {}
        Change::Cut(at) => bytes.truncate(at.index(length)),
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    /// No panic, no message that a terminal obeys, nothing from outside the file; with true header
    /// checksums, so that what was changed is also read, and without.
    #[test]
    fn changed_seeds_hold(
        seed in any::<prop::sample::Index>(),
        changes in prop::collection::vec(change(), 1..12),
        seal in prop::bool::weighted(0.8),
    ) {
        let seed = SEEDS[seed.index(SEEDS.len())].1.clone();
        let mut bytes = changes.iter().fold(seed, changed);
        if seal {
            shard::reseal(&mut bytes);
        }
        held(&bytes);
    }
}
