//! Codes of target pictures: computed once by the frozen image tokenizer, then kept on disk.
//!
//! A picture's codes depend on its bytes, on how they are decoded and resized, and on the image
//! tokenizer's weights; the name of a cache file is the hash of all three, so a stale one is never
//! met, only never asked for. A damaged file counts as absent and is written again.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use janus_model::processor::PixelValues;
use sha2::{Digest, Sha256};

use super::error::DataError;

/// To be raised when the same bytes no longer give the same pixels.
const PREPROCESSING: u32 = 1;
/// Bytes of the checksum at the end of a file.
const CHECK: usize = 8;

/// The frozen image tokenizer, as far as data need it.
pub trait Encode {
    /// SHA-256 of its weights.
    fn fingerprint(&self) -> [u8; 32];

    /// Codes of each picture in raster order. A few pictures are given at once.
    ///
    /// # Errors
    /// What went wrong, in words.
    fn encode(&mut self, pictures: &[PixelValues]) -> Result<Vec<Vec<i32>>, String>;
}

/// Which picture, prepared and encoded how.
pub type Key = [u8; 32];

/// What of a picture is in the square that is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Its middle, to its shorter side.
    Middle,
    /// All of it, with bars.
    Whole,
}

/// A folder of codes.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    tokenizer: [u8; 32],
    codes: usize,
    written: AtomicU64,
}

impl Cache {
    /// Opens a folder, which is made if need be, for pictures of `codes` codes.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub fn open(folder: &Path, tokenizer: [u8; 32], codes: usize) -> Result<Self, DataError> {
        fs::create_dir_all(folder).map_err(|source| DataError::Io {
            path: folder.to_owned(),
            action: "create",
            source,
        })?;
        Ok(Self { folder: folder.to_owned(), tokenizer, codes, written: AtomicU64::new(0) })
    }

    /// The name of a picture's codes; `side` in pixels, `upright` where EXIF is followed.
    pub fn key(&self, picture: &[u8], side: usize, upright: bool, framing: Framing) -> Key {
        let mut hash = Sha256::new();
        hash.update(b"janus image codes");
        hash.update(PREPROCESSING.to_le_bytes());
        hash.update((side as u64).to_le_bytes());
        hash.update([u8::from(upright)]);
        if framing == Framing::Whole {
            hash.update(b"whole");
        }
        hash.update(self.tokenizer);
        hash.update(picture);
        hash.finalize().into()
    }

    /// The codes, if they are there and whole.
    pub fn get(&self, key: &Key) -> Option<Vec<i32>> {
        let bytes = fs::read(self.path(key)).ok()?;
        let (codes, check) = bytes.split_at_checked(2 * self.codes)?;
        let codes_of = |bytes: &[u8]| i32::from(u16::from_le_bytes([bytes[0], bytes[1]]));
        (check == checksum(codes).as_slice()).then(|| codes.chunks_exact(2).map(codes_of).collect())
    }

    /// Keeps the codes of a picture.
    ///
    /// # Errors
    /// [`DataError::Encode`] for codes that do not fit, [`DataError::Io`].
    pub fn put(&self, key: &Key, codes: &[i32]) -> Result<(), DataError> {
        let narrow = codes.iter().map(|code| u16::try_from(*code).map(u16::to_le_bytes));
        let narrow: Result<Vec<[u8; 2]>, _> = narrow.collect();
        let Some(bytes) = narrow.ok().filter(|codes| codes.len() == self.codes) else {
            let problem = format!("{} codes, not {} from 0 to 65535", codes.len(), self.codes);
            return Err(DataError::Encode { problem });
        };
        let bytes = bytes.concat();
        let path = self.path(key);
        let io = |source| DataError::Io { path: path.clone(), action: "write", source };
        let folder = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder).map_err(io)?;
        // Under another name first: several runs may share the folder, and none may see a half.
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let unfinished = path.with_extension(format!("tmp-{}-{number}", std::process::id()));
        let write = || {
            let mut file = fs::File::create(&unfinished)?;
            file.write_all(&bytes)?;
            file.write_all(&checksum(&bytes))?;
            fs::rename(&unfinished, &path)
        };
        write().map_err(|error| {
            // The cause matters more than a leftover.
            let _ = fs::remove_file(&unfinished);
            io(error)
        })
    }

    fn path(&self, key: &Key) -> PathBuf {
        let name: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(&name[..2]).join(format!("{}.codes", &name[2..]))
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECK] {
    let hash: [u8; 32] = Sha256::digest(bytes).into();
    std::array::from_fn(|index| hash[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_back_and_damage_counts_as_absent() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), [7; 32], 4).unwrap();
        let key = cache.key(b"a picture", 384, true, Framing::Middle);
        assert_eq!(cache.get(&key), None);
        cache.put(&key, &[0, 1, 16_383, 65_535]).unwrap();
        assert_eq!(cache.get(&key), Some(vec![0, 1, 16_383, 65_535]));
        let path = cache.path(&key);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(&path, flipped).unwrap();
            assert_eq!(cache.get(&key), None, "byte {at}");
        }
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(cache.get(&key), None, "cut to {cut}");
        }
        cache.put(&key, &[4, 3, 2, 1]).unwrap();
        assert_eq!(cache.get(&key), Some(vec![4, 3, 2, 1]));
    }

    #[test]
    fn everything_that_codes_depend_on_is_in_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let cache = |tokenizer| Cache::open(folder.path(), tokenizer, 4).unwrap();
        let key = cache([1; 32]).key(b"a", 384, true, Framing::Middle);
        assert_ne!(key, cache([2; 32]).key(b"a", 384, true, Framing::Middle));
        assert_ne!(key, cache([1; 32]).key(b"b", 384, true, Framing::Middle));
        assert_ne!(key, cache([1; 32]).key(b"a", 96, true, Framing::Middle));
        assert_ne!(key, cache([1; 32]).key(b"a", 384, false, Framing::Middle));
        assert_ne!(key, cache([1; 32]).key(b"a", 384, true, Framing::Whole));
    }

    #[test]
    fn codes_that_cannot_be_kept_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), [0; 32], 2).unwrap();
        for codes in [&[1][..], &[1, 2, 3], &[-1, 0], &[0, 65_536]] {
            assert!(cache.put(&[0; 32], codes).is_err(), "{codes:?}");
        }
    }
}
