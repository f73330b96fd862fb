//! Adapters: those that PEFT wrote here, ours there, and merged against unmerged.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor};
use janus_model::adapters::{AdapterSave, merged};
use janus_model::checkpoint::{Checkpoint, LazyTensor, Limits, Naming, cast};
use janus_model::llama::Mask;
use janus_model::rope::Positions;
use janus_model::{Janus, LoadOptions, Parts};

use crate::common::{Case, Fixture, fixtures, targets, values};
use crate::llama::places;

const MODEL: &str = "tiny-pro";

fn folder(name: &str) -> PathBuf {
    fixtures().join(MODEL).join(name)
}

fn add(janus: &mut Janus, name: &str) {
    janus.add_adapter(&folder(name), &Limits::default()).unwrap();
}

/// Logits of a question about a picture, and of the code after a few codes of a drawing.
fn computed(janus: &Janus, given: &Fixture, device: &Device) -> [Vec<f32>; 2] {
    let hidden = |x: Tensor<3>, last: usize| {
        let tokens = x.dims()[1];
        let rope = janus.rope(tokens);
        let hidden = janus.hidden(x, &rope, &Positions::From(0), &Mask::Causal, None);
        hidden.slice_dim(1, tokens - last..tokens)
    };
    let pixels = given.float::<4>("pixel_values", device).slice_dim(0, 0..1);
    let features = janus.encode_image(pixels).unwrap();
    let slots = vec![places(&given.i32s("prompt.text_ids"), features.dims()[1])];
    let prompt = janus.embed_prompt(given.ids("prompt.text_ids", device), &slots, features);
    let text = janus.text_logits(hidden(prompt.unwrap(), 4)).unwrap();

    let codes = given.ids("gen.codes", device).slice_dim(1, 0..5);
    let prompt = janus.embed_text(given.ids("gen.prompt_ids", device));
    let drawn = Tensor::cat(vec![prompt, janus.embed_codes(codes).unwrap()], 1);
    let image = janus.image_logits(hidden(drawn, 1).squeeze_dim::<2>(1)).unwrap();
    [values(text), values(image)]
}

fn check(case: &Case, janus: &Janus, wanted: &str) {
    let expected = Fixture::file(MODEL, "adapters.safetensors");
    let found = computed(janus, &case.fixture, case.device());
    for (key, found) in ["text", "image"].iter().zip(found) {
        let key = format!("{wanted}.{key}");
        case.close_to(&key, &found, &expected.f32s(&key));
    }
}

/// Values in f32, whatever they are stored as.
fn read(tensor: &LazyTensor) -> Vec<f32> {
    let bytes = cast(tensor.clone(), DType::F32).to_bytes().unwrap();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn cases() -> impl Iterator<Item = Case> {
    let of = |target| ["original", "hf"].map(|folder| Case::new(MODEL, folder, &target));
    targets().into_iter().flat_map(of)
}

/// Names of either dialect, a bare decoder, ranks and scales that differ, the root of the rank.
///
/// Measured: 3.0e-6 flex, 3.0e-6 flex-bf16, 1.8e-6 ndarray, 2.4e-6 wgpu.
#[test]
fn adapters_of_peft_compute_the_same_here() {
    for case in cases() {
        let mut janus = case.janus.clone();
        add(&mut janus, "adapter");
        check(&case, &janus, "adapter");
        // In place of the one before, and then beside it: on four layers both.
        janus.load_adapter(&folder("adapter-decoder"), &Limits::default()).unwrap();
        check(&case, &janus, "decoder");
        add(&mut janus, "adapter");
        check(&case, &janus, "both");
    }
}

/// As `make_adapter_fixtures.py --check` confirms, PEFT reads the folders kept here, too.
#[test]
fn what_is_saved_is_what_was_attached() {
    let target = &targets()[0];
    let case = Case::new(MODEL, "hf", target);
    let mut janus = case.janus.clone();
    add(&mut janus, "adapter");
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("adapters");
    let _ = std::fs::remove_dir_all(&root);
    for (name, naming) in [("hf", Naming::HuggingFace), ("original", Naming::Original)] {
        let dir = root.join(name);
        let options = AdapterSave { base: Some("tiny-pro".into()), naming };
        janus.save_adapter(&dir, &options).unwrap();
        let mut again = case.janus.clone();
        let report = again.load_adapter(&dir, &Limits::default()).unwrap();
        assert_eq!(report.base.as_deref(), Some("tiny-pro"));
        assert_eq!((report.layers.len(), report.dropped.len()), (29, 0));
        for ((name, before), (_, after)) in janus.linears_mut().iter().zip(again.linears_mut()) {
            let (before, after) = (before.lora.as_ref().unwrap(), after.lora.as_ref().unwrap());
            assert_eq!(before.a.val().into_data(), after.a.val().into_data(), "{name}");
            assert_eq!(before.b.val().into_data(), after.b.val().into_data(), "{name}");
            assert_eq!(before.scale.to_bits(), after.scale.to_bits(), "{name}");
        }
        // Over an older one, of which nothing is left.
        again.save_adapter(&dir, &options).unwrap();
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 2);
    }
}

/// A half that is not loaded is left out and named; the rest is as ever.
#[test]
fn half_a_model_takes_its_half_of_an_adapter() {
    for (parts, layers) in [(Parts::Understanding, 25), (Parts::Generation, 18)] {
        let options = LoadOptions { parts, dtype: Some(DType::F32), ..Default::default() };
        let mut janus = Janus::load(&folder("hf"), &Device::flex(), &options).unwrap().0;
        let report = janus.load_adapter(&folder("adapter"), &Limits::default()).unwrap();
        assert_eq!((report.layers.len(), report.dropped.len()), (layers, 29 - layers));
        assert!(report.dropped.iter().all(|dropped| dropped.elements > 0));
        // Query, key and value of the vision tower, each of rank 2, are one layer of rank 6 here.
        let ranks = if parts == Parts::Generation { (1, 3) } else { (2, 6) };
        assert_eq!(report.ranks(), ranks);
    }
}

/// PEFT copies a text head that has an adapter into the file.
#[test]
fn a_copy_of_the_models_own_weight_is_left_out() {
    let source = folder("adapter");
    let dir = tempfile::tempdir().unwrap();
    let name = "adapter_config.json";
    std::fs::copy(source.join(name), dir.path().join(name)).unwrap();
    let name = "adapter_model.safetensors";
    let bytes = std::fs::read(source.join(name)).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let head = [vec![0u8; 640 * 64 * 4]];
    let of = |rows| safetensors::tensor::TensorView::new(safetensors::Dtype::F32, rows, &head[0]);
    for (shape, fits) in [(vec![640, 64], true), (vec![64, 640], false)] {
        let copy = ("base_model.model.lm_head.base_layer.weight".to_owned(), of(shape).unwrap());
        let tensors = file.tensors().into_iter().chain([copy]);
        let bytes = safetensors::serialize(tensors, None).unwrap();
        std::fs::write(dir.path().join(name), bytes).unwrap();
        let options = LoadOptions { dtype: Some(DType::F32), ..Default::default() };
        let mut janus = Janus::load(&folder("hf"), &Device::flex(), &options).unwrap().0;
        let result = janus.load_adapter(dir.path(), &Limits::default());
        assert_eq!(result.is_ok(), fits, "{result:?}");
        if let Ok(report) = result {
            assert!(report.dropped[0].reason.contains("own weight"), "{report:?}");
        }
    }
}

/// Merged against unmerged, as a share of the largest logit.
///
/// Measured: 4.4e-6 with weights in f32, 1.6e-2 with weights in bf16, which the merged ones are
/// rounded to.
#[test]
fn merged_and_unmerged_agree() {
    for target in targets() {
        let case = Case::new(MODEL, "original", &target);
        let mut janus = case.janus.clone();
        add(&mut janus, "adapter");
        add(&mut janus, "adapter-decoder");
        let unmerged = computed(&janus, &case.fixture, case.device());
        janus.merge_adapters();
        let merged = computed(&janus, &case.fixture, case.device());
        let bound = if target.dtype == DType::BF16 { 3e-2 } else { target.bound };
        for (merged, unmerged) in merged.iter().zip(&unmerged) {
            let scale = unmerged.iter().fold(0.0f32, |most, v| most.max(v.abs()));
            let off = merged.iter().zip(unmerged).map(|(a, b)| (a - b).abs());
            let off = f64::from(off.fold(0.0, f32::max) / scale);
            println!("measured merged {}: {off:.1e}", target.name);
            assert!(off <= bound, "{}: {off:.1e}", target.name);
        }
    }
}

/// A weight of 4 bits cannot take an adapter in: it stays beside it. Those of the encoder, in f32, are
/// taken in.
///
/// The bound, a share of the largest logit, leaves room for activations that differ by a last bit
/// and round to other 8 bits. Measured 4.1e-2.
#[test]
fn weights_of_few_bits_keep_their_adapters() {
    let device = Device::flex();
    let packed = Some(janus_model::packed::Bits::Four);
    let options = LoadOptions { packed, ..Default::default() };
    let mut janus = Janus::load(&folder("hf"), &device, &options).unwrap().0;
    add(&mut janus, "adapter");
    let fixture = Fixture::open(MODEL);
    let unmerged = computed(&janus, &fixture, &device);
    janus.merge_adapters();
    let (mut beside, mut within) = (0, 0);
    for (name, linear) in janus.linears_mut() {
        match (linear.packed().is_some(), linear.lora.is_some()) {
            (true, true) => beside += 1,
            (false, false) => within += 1,
            (true, false) => {}
            (false, true) => panic!("{name} was not merged"),
        }
    }
    assert!(beside > 0 && within > 0, "{beside} {within}");
    let merged = computed(&janus, &fixture, &device);
    for (merged, unmerged) in merged.iter().zip(&unmerged) {
        let scale = unmerged.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        let off = merged.iter().zip(unmerged).map(|(a, b)| (a - b).abs());
        let off = off.fold(0.0, f32::max) / scale;
        println!("measured beside {off:.1e}");
        assert!(off <= 5e-2, "{off:.1e}");
    }
}

/// On the way from file to file as in a model: to the last bits in f32, to a rounding in bf16.
#[test]
fn files_merge_as_models_do() {
    let dirs = [folder("adapter"), folder("adapter-decoder")];
    let limits = Limits::default();
    for (dtype, bound) in [(DType::F32, 1e-6), (DType::BF16, 1.0 / 128.0)] {
        let options =
            LoadOptions { dtype: Some(dtype), adapters: dirs.to_vec(), ..Default::default() };
        let (mut janus, report) = Janus::load(&folder("hf"), &Device::flex(), &options).unwrap();
        assert_eq!(report.adapters.len(), 2);
        janus.merge_adapters();
        let tensors = Checkpoint::open(folder("hf"), &limits).unwrap().canonical().unwrap().tensors;
        let before: HashMap<_, _> = tensors.iter().map(|t| (t.name.clone(), read(t))).collect();
        let device = Device::flex();
        let found = merged(tensors, janus.config(), (&dirs, &limits), Some(dtype), &device);
        let found: HashMap<_, _> =
            found.unwrap().0.iter().map(|t| (t.name.clone(), read(t))).collect();
        let mut changed = 0;
        for tensor in janus.tensors() {
            let (expected, found) = (read(&tensor), &found[&tensor.name]);
            let scale = expected.iter().fold(0.0f32, |most, v| most.max(v.abs()));
            let off = expected.iter().zip(found).map(|(a, b)| (a - b).abs());
            let off = off.fold(0.0, f32::max) / scale;
            assert!(off <= bound, "{} in {dtype:?}: {off:.1e}", tensor.name);
            changed += usize::from(*found != before[&tensor.name]);
        }
        assert_eq!(changed, 29);
    }
}

/// The fixture holds what the configuration says, so that a test that passes says something.
#[test]
fn the_fixture_is_what_it_should_be() {
    let file = folder("adapter").join("adapter_model.safetensors");
    let checkpoint = Checkpoint::open(&file, &Limits::default()).unwrap();
    let rank = |module: &str| {
        let name = format!("base_model.model.{module}.lora_A.weight");
        checkpoint.raw().iter().find(|t| t.name == name).unwrap().shape[0]
    };
    assert_eq!(rank("model.generation_aligner.fc1"), 1);
    assert_eq!(rank("model.language_model.layers.0.self_attn.o_proj"), 3);
    assert_eq!(rank("lm_head"), 2);
}
