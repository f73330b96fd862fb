//! The key-value cache: the same numbers as without it, written in place.

use burn::tensor::DType;
use janus_model::llama::Mask;
use janus_model::rope::Positions;

use crate::common::{Case, FOLDERS, each, targets, values};

/// Prefill of all but four tokens, then three single tokens and one of the rest.
///
/// Measured: 1.7e-6 flex, 1.7e-6 flex-bf16, 1.4e-6 ndarray, 1.8e-6 wgpu.
#[test]
fn cached_equals_uncached() {
    each(|case| {
        let x = case.fixture.float::<3>("prompt.embeds", case.device());
        let tokens = x.dims()[1];
        let rope = case.janus.rope(tokens);
        let mut cache = case.janus.cache(1, tokens);
        let mut start = 0;
        let mut output = Vec::new();
        for size in [tokens - 6, 1, 1, 4] {
            let piece = x.clone().slice_dim(1, start..start + size);
            let at = Positions::From(start);
            let y = case.janus.hidden(piece, &rope, &at, &Mask::Causal, Some(&mut cache));
            output.extend(values(y));
            start += size;
        }
        assert_eq!((cache.len(), cache.capacity()), (tokens, tokens));
        case.close_to("llama.output (cached)", &output, &case.fixture.f32s("llama.output"));
    });
}

/// A step must not move the buffers: on the CPU the address tells, elsewhere `can_mut` does.
#[test]
fn steps_write_in_place() {
    for target in targets().into_iter().filter(|t| t.dtype == DType::F32) {
        let case = Case::new(FOLDERS[0].0, FOLDERS[0].1, &target);
        let rope = case.janus.rope(40);
        let mut cache = case.janus.cache(2, 40);
        let x = case.fixture.float::<3>("prompt.embeds", case.device());
        let x = x.repeat_dim(0, 2);
        let mut before = Vec::new();
        for (start, size) in [(0, 30), (30, 1), (31, 1), (32, 8)] {
            let piece = x.clone().slice_dim(1, start..start + size);
            let at = Positions::From(start);
            let _ = values(case.janus.hidden(piece, &rope, &at, &Mask::Causal, Some(&mut cache)));
            let now: Vec<usize> = addresses(&cache, case.janus.config().language.num_hidden_layers);
            assert!(start == 0 || now == before, "{}: a buffer moved at {start}", target.name);
            before = now;
        }
    }
}

/// Where each layer's keys lie in memory; empty on backends whose memory has no address.
fn addresses(cache: &janus_model::kv_cache::KvCache, layers: usize) -> Vec<usize> {
    #[cfg(feature = "cpu")]
    {
        use burn::backend::Flex;
        let address = |layer| {
            let keys = cache.keys(layer)?.try_into_primitive::<Flex>().ok()?;
            Some(keys.bytes().as_ptr() as usize)
        };
        (0..layers).filter_map(address).collect()
    }
    #[cfg(not(feature = "cpu"))]
    {
        let _ = (cache, layers);
        Vec::new()
    }
}
