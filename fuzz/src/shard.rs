//! What must hold for any bytes that are given out as a tar shard. Shared by the fuzz target
//! `tar_sample` and its twin in `tests/train/data_shards.rs`.

use std::path::Path;

use janus_train::data::error::At;
use janus_train::data::formats::{Format, Reader, Spec, open};
use janus_train::data::sample::{Content, Picture, Piece, Sample};

/// Bytes that a tar archive spends on each member at least.
const BLOCK: usize = 512;
/// Longest message, causes included.
const MESSAGE_BYTES: usize = 16 << 10;

/// Opens a file as a shard and reads every sample, twice. Returns how many could be used.
pub fn hold(path: &Path, bytes: &[u8]) -> usize {
    let spec = Spec { format: Some(Format::WebDataset), ..Spec::of(path) };
    let (first, again) = (open(&spec), open(&spec));
    let (reader, again) = match (first, again) {
        (Ok(first), Ok(again)) => (first, again),
        (Err(error), Err(_)) => {
            let _ = (error.kind(), error.hint());
            said(&format!("{error}: {:?}", std::error::Error::source(&error)));
            return 0;
        }
        _ => panic!("the same file opens once, and then not"),
    };
    assert_eq!(reader.fingerprint(), again.fingerprint());
    assert_eq!(reader.chunks(), again.chunks());
    let count: u64 = reader.chunks().iter().sum();
    // The last one may be the damage.
    let most = bytes.len() / BLOCK + 1;
    assert!(count > 0 && count as usize <= most, "{count} samples in {} bytes", bytes.len());
    (0..count).filter(|index| usable(reader.as_ref(), again.as_ref(), *index, bytes)).count()
}

/// Whether a sample is good; what it says about itself holds either way.
fn usable(reader: &dyn Reader, again: &dyn Reader, index: u64, bytes: &[u8]) -> bool {
    let place = reader.place(index);
    said(&place.to_string());
    match (reader.sample(index), again.sample(index)) {
        (Ok(sample), Ok(same)) => {
            assert_eq!(sample, same);
            let At::Member(key) = place.at else { panic!("{place} is no member") };
            let leads_out =
                key.starts_with(['/', '\\']) || key.split(['/', '\\']).any(|part| part == "..");
            assert!(!leads_out, "{key:?} leads out");
            good(&sample, bytes);
            true
        }
        (Err(why), Err(same)) => {
            assert_eq!(why.to_string(), same.to_string());
            said(&why.to_string());
            false
        }
        _ => panic!("the same sample is good once, and then not"),
    }
}

/// One picture and one text, neither of which is anything but bytes of the file.
fn good(sample: &Sample, bytes: &[u8]) {
    let [Picture::Bytes(picture)] = &sample.pictures[..] else { panic!("not one picture") };
    assert!(picture.is_empty() || contains(bytes, picture), "a picture from elsewhere");
    let Content::Turns { turns, .. } = &sample.content else { panic!("no turns") };
    let texts = turns.iter().flat_map(|turn| &turn.pieces);
    let texts: Vec<&String> = texts
        .filter_map(|piece| match piece {
            Piece::Text(text) => Some(text),
            Piece::Picture(_) => None,
        })
        .collect();
    let [caption] = texts[..] else { panic!("not one text") };
    assert!(!caption.is_empty() && caption.len() <= bytes.len(), "{caption:?}");
}

fn contains(whole: &[u8], part: &[u8]) -> bool {
    whole.windows(part.len()).any(|window| window == part)
}

/// What goes to terminals and logs is short and without control characters.
fn said(text: &str) {
    assert!(text.len() <= MESSAGE_BYTES, "a message of {} bytes", text.len());
    assert!(!text.chars().any(char::is_control), "unescaped: {text:?}");
}

/// Gives every header the checksum that its bytes have: without it, hardly a changed header is ever
/// looked into.
pub fn reseal(bytes: &mut [u8]) {
    const SUM: std::ops::Range<usize> = 148..156;
    for header in bytes.chunks_exact_mut(BLOCK).filter(|block| &block[257..262] == b"ustar") {
        header[SUM].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[SUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}
