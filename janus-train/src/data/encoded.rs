//! The last thing that samples lack: codes of pictures that were never met.

use janus_model::processor::PixelValues;

use super::collate::Example;
use super::error::DataError;
use super::prepare::{Codes, Prepare, Prepared};

/// Pictures given to the image tokenizer at once: bounds its memory.
const AT_ONCE: usize = 8;

/// Adds the codes that are not known yet, and keeps them where `prepare` has a cache.
///
/// `encode` is called for unknown pictures only, a few at once.
///
/// # Errors
/// [`DataError::Encode`], [`DataError::Io`].
pub fn encoded(
    mut taken: Vec<Prepared>,
    prepare: &Prepare,
    mut encode: impl FnMut(&[PixelValues]) -> Result<Vec<Vec<i32>>, String>,
) -> Result<Vec<Example>, DataError> {
    let mut wanted = Vec::new();
    for codes in taken.iter_mut().flat_map(|prepared| &mut prepared.codes) {
        if let Codes::Wanted { key, pixels } = codes {
            let (key, pixels) = (*key, std::mem::take(&mut pixels.data));
            wanted.push((codes, key, pixels));
        }
    }
    let side = prepare.tokens.processor.image.image_size;
    for some in wanted.chunks_mut(AT_ONCE) {
        let pixels = some.iter_mut().map(|(_, _, pixels)| std::mem::take(pixels));
        let pixels: Vec<_> = pixels.map(|data| PixelValues { side, data }).collect();
        let found = encode(&pixels).map_err(|problem| DataError::Encode { problem })?;
        check(&found, pixels.len(), prepare.tokens.codes)?;
        for ((codes, key, _), found) in some.iter_mut().zip(found) {
            if let (Some(cache), Some(key)) = (&prepare.cache, key) {
                cache.put(key, &found)?;
            }
            **codes = Codes::Known(found);
        }
    }
    Ok(taken.into_iter().map(example).collect())
}

/// Whether every picture has as many codes as it should.
fn check(found: &[Vec<i32>], pictures: usize, each: usize) -> Result<(), DataError> {
    if found.len() == pictures && found.iter().all(|codes| codes.len() == each) {
        return Ok(());
    }
    let lengths: Vec<usize> = found.iter().map(Vec::len).collect();
    let problem = format!("{lengths:?} codes for {pictures} pictures of {each}");
    Err(DataError::Encode { problem })
}

fn example(prepared: Prepared) -> Example {
    let known = |codes| match codes {
        Codes::Known(codes) => codes,
        Codes::Wanted { .. } => Vec::new(),
    };
    let codes = prepared.codes.into_iter().map(known).collect();
    Example { document: prepared.document, pixels: prepared.pixels, codes }
}
