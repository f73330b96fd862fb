//! The key-value cache: the same numbers as without it, written in place.

use burn::tensor::{DType, Tensor};
use janus_model::llama::Mask;
use janus_model::rope::Positions;

use crate::common::{Case, FOLDERS, Target, each, targets, values};

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

/// A cache that grows keeps its contents, and is written in place afterwards.
#[test]
fn growing_keeps_what_is_held() {
    for target in targets() {
        let case = Case::new(FOLDERS[0].0, FOLDERS[0].1, &target);
        let x = case.fixture.float::<3>("prompt.embeds", case.device());
        let rope = case.janus.rope(40);
        let run = |grown: bool| {
            let mut cache = case.janus.cache(1, if grown { 20 } else { 40 });
            let mut output = Vec::new();
            for (start, size) in [(0, 20), (20, 1), (21, 9)] {
                cache.grow(start + size);
                let piece = x.clone().slice_dim(1, start..start + size);
                let at = Positions::From(start);
                let y = case.janus.hidden(piece, &rope, &at, &Mask::Causal, Some(&mut cache));
                output.extend(values(y));
            }
            assert_eq!((cache.len(), cache.capacity()), (30, if grown { 30 } else { 40 }));
            assert!(target.name == "ndarray" || cache.can_write_in_place(), "{}", target.name);
            output
        };
        let (grown, roomy) = (run(true), run(false));
        case.close_to("llama.output (grown cache)", &grown, &roomy);
    }
}

/// The backends that write in place. ndarray is left out: it answers "no" for every tensor, and
/// Burn's slice assignment copies there.
fn in_place() -> impl Iterator<Item = Target> {
    targets().into_iter().filter(|t| t.dtype == DType::F32 && t.name != "ndarray")
}

/// No step moves a buffer of keys or values, and none is shared when the step is over. Addresses
/// tell on the CPU; elsewhere memory has none, and Burn's own answer has to do.
#[test]
fn steps_write_in_place() {
    for target in in_place() {
        let case = Case::new(FOLDERS[0].0, FOLDERS[0].1, &target);
        let rope = case.janus.rope(40);
        let mut cache = case.janus.cache(2, 40);
        let x = case.fixture.float::<3>("prompt.embeds", case.device()).repeat_dim(0, 2);
        let mut before = Vec::new();
        for (start, size) in [(0, 30), (30, 1), (31, 1), (32, 8)] {
            let piece = x.clone().slice_dim(1, start..start + size);
            let at = Positions::From(start);
            let _ = values(case.janus.hidden(piece, &rope, &at, &Mask::Causal, Some(&mut cache)));
            assert!(cache.can_write_in_place(), "{}: shared after {start}", target.name);
            let now = addresses(cache.buffers());
            let layers = case.janus.config().language.num_hidden_layers;
            assert!(
                target.name != "flex" || now.len() == 2 * layers,
                "every buffer has an address"
            );
            assert!(start == 0 || now == before, "{}: a buffer moved at {start}", target.name);
            before = now;
        }
    }
}

/// While somebody holds a view, a write must copy: the test above can fail.
#[test]
fn a_held_view_forbids_writing_in_place() {
    for target in in_place() {
        let case = Case::new(FOLDERS[0].0, FOLDERS[0].1, &target);
        let cache = case.janus.cache(1, 8);
        let held = cache.buffers();
        assert!(!cache.can_write_in_place(), "{}", target.name);
        drop(held);
        assert!(cache.can_write_in_place(), "{}", target.name);
    }
}

/// Where each buffer lies in memory; empty on backends whose memory has no address.
fn addresses(buffers: Vec<Tensor<4>>) -> Vec<usize> {
    #[cfg(feature = "cpu")]
    {
        use burn::backend::Flex;
        let address = |buffer: Tensor<4>| {
            let primitive = buffer.try_into_primitive::<Flex>().ok()?;
            Some(primitive.bytes().as_ptr() as usize)
        };
        buffers.into_iter().filter_map(address).collect()
    }
    #[cfg(not(feature = "cpu"))]
    {
        drop(buffers);
        Vec::new()
    }
}
