//! The text tables with the processor, everything else on the device: as large models run on
//! graphics cards that bind small buffers only.

use burn::tensor::{DType, Device, Int, Tensor};
use janus_model::capacity::largest_tensor;
use janus_model::checkpoint::{SaveOptions, save};
use janus_model::config::Dialect;
use janus_model::llama::Mask;
use janus_model::rope::Positions;
use janus_model::{Janus, JanusConfig, LoadOptions, Parts, Precision, TextTables};

use crate::common::{Case, fixtures, targets, values};

/// Rows cross over, and nothing changes: prompt embeddings and logits are PyTorch's.
///
/// Measured: 6.1e-7 flex, 6.1e-7 flex-bf16, 9.9e-7 ndarray, 1.3e-6 wgpu.
#[test]
fn text_tables_with_the_processor() {
    for target in targets() {
        let mut case = Case::new("tiny-pro", "original", &target);
        let options = LoadOptions {
            dtype: Some(target.dtype),
            tables: TextTables::Host,
            ..LoadOptions::default()
        };
        let path = fixtures().join("tiny-pro/original");
        let (janus, report) = Janus::load(&path, &target.device, &options).unwrap();
        // On the CPU the processor is the device.
        assert_eq!(report.tables_on_host, !target.name.starts_with("flex"), "{}", target.name);
        case.janus = janus;

        let ids = case.fixture.ids("gen.prompt_ids", case.device());
        let x = case.janus.embed_text(ids);
        assert_eq!(&x.device(), case.device());
        let tokens = x.dims()[1];
        let rope = case.janus.rope(tokens);
        let hidden = case.janus.hidden(x, &rope, &Positions::From(0), &Mask::Causal, None);
        let last = hidden.slice_dim(1, tokens - 1..tokens).squeeze_dim::<2>(1);
        case.close("gen.logits.cond", case.janus.image_logits(last).unwrap().squeeze_dim::<1>(0));

        let hidden = case.fixture.float::<3>("llama.output", case.device());
        let tokens = hidden.dims()[1];
        let tail = hidden.slice_dim(1, tokens - 8..tokens);
        case.close("prompt.logits.tail", case.janus.text_logits(tail).unwrap());
    }
}

/// Only graphics interfaces bound the size of a tensor, and small tables stay on the device.
#[test]
fn tables_move_only_where_they_must() {
    for target in targets() {
        let limit = largest_tensor(&target.device);
        assert_eq!(limit.is_some(), target.name == "wgpu", "{}: {limit:?}", target.name);
        assert!(limit.is_none_or(|limit| limit >= 128 << 20), "{limit:?}");
        let (_, report) = Janus::load(
            &fixtures().join("tiny-pro/original"),
            &target.device,
            &LoadOptions { dtype: Some(target.dtype), ..LoadOptions::default() },
        )
        .unwrap();
        assert!(!report.tables_on_host, "{}", target.name);
    }
}

/// A vocabulary whose tables the driver cannot bind: without a place for them, the first lookup
/// would be the end of the device.
#[cfg(feature = "wgpu-parity")]
#[test]
fn tables_that_cannot_be_bound_are_used_all_the_same() {
    let Some(device) = crate::common::wgpu() else { return };
    let limit = largest_tensor(&device).unwrap();
    if limit > 256 << 20 {
        eprintln!("skipped: this driver binds {limit} bytes, and tables beyond that are large");
        return;
    }
    let mut config = JanusConfig::from_dir(&fixtures().join("tiny-pro/original")).unwrap().0;
    let rows = (limit / 4) as usize / config.language.hidden_size + 1;
    config.language.vocab_size = rows;
    let folder = tempfile::tempdir().unwrap();
    let random = config.init(Parts::All, Precision::F32, &Device::flex());
    let options = SaveOptions { dtype: Some(DType::BF16), ..SaveOptions::default() };
    save(folder.path(), random.tensors(), &options).unwrap();
    let json = config.to_json(Dialect::Original, "bfloat16", None);
    std::fs::write(folder.path().join("config.json"), json).unwrap();

    let look = |device: &Device| {
        let options = LoadOptions { dtype: Some(DType::F32), ..LoadOptions::default() };
        let (janus, report) = Janus::load(folder.path(), device, &options).unwrap();
        let last = (rows - 1) as i32;
        let ids = Tensor::<2, Int>::from_data([[0, 1, last / 2, last]], device);
        let x = janus.embed_text(ids);
        let logits = values(janus.text_logits(x.clone()).unwrap());
        (report.tables_on_host, values(x), logits)
    };
    let (on_host, there, their_logits) = look(&device);
    let (_, here, our_logits) = look(&Device::flex());
    assert!(on_host);
    assert!(here.iter().any(|value| *value != 0.0));
    assert_eq!(there, here);
    let far = |(a, b): (&f32, &f32)| (a - b).abs() > 1e-6;
    assert_eq!(their_logits.len(), 4 * rows);
    assert!(!their_logits.iter().zip(&our_logits).any(far));
}
