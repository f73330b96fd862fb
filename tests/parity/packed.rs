//! Decoder and heads in 8 or 4 bits: near what PyTorch computes with the weights as they are.

use burn::tensor::{DType, Device};
use janus_model::llama::Mask;
use janus_model::packed::Bits;
use janus_model::rope::Positions;
use janus_model::{Error, Janus, LoadOptions};

use crate::common::{Fixture, fixtures, values};

fn load(model: &str, device: &Device, bits: Bits) -> Result<Janus, Error> {
    let path = fixtures().join(model).join("hf");
    let options = LoadOptions { packed: Some(bits), ..Default::default() };
    Janus::load(&path, device, &options).map(|(janus, _)| janus)
}

/// Largest difference as a share of the largest value, logits of the first image code, tiny-pro and
/// tiny-odd: 3.3e-2 and 4.5e-2 in 8 bits, 3.2e-1 and 2.3e-1 in 4.
#[test]
fn logits_are_near() {
    let device = Device::flex();
    for (bits, bound) in [(Bits::Eight, 0.05), (Bits::Four, 0.5)] {
        for model in ["tiny-pro", "tiny-odd"] {
            let fixture = Fixture::open(model);
            let janus = load(model, &device, bits).unwrap();
            assert_eq!(janus.precision().packed, Some(bits));
            let x = janus.embed_text(fixture.ids("gen.prompt_ids", &device));
            let tokens = x.dims()[1];
            let rope = janus.rope(tokens);
            let hidden = janus.hidden(x, &rope, &Positions::From(0), &Mask::Causal, None);
            let last = hidden.slice_dim(1, tokens - 1..tokens).squeeze_dim(1);
            let found = values(janus.image_logits(last).unwrap());
            let expected = fixture.f32s("gen.logits.cond");
            assert_eq!(found.len(), expected.len());
            let largest = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            let off = found.iter().zip(&expected).map(|(a, b)| (a - b).abs() / largest);
            let worst = off.fold(0.0, f32::max);
            println!("measured {model} {}: {worst:.1e}", bits.name());
            assert!(worst < bound && worst > 0.0, "{model} {}: {worst}", bits.name());
        }
    }
}

/// Where products are not ours, nothing is rounded behind anybody's back.
#[cfg(feature = "ndarray")]
#[test]
#[allow(deprecated)]
fn other_devices_refuse() {
    let error = load("tiny-pro", &Device::ndarray(), Bits::Eight).unwrap_err();
    assert!(matches!(error, Error::Dtype { ref dtype, .. } if dtype == "int8"), "{error}");
}

/// Tables, encoder and adaptors stay as in the file.
#[test]
fn what_is_rounded() {
    let mut janus = load("tiny-pro", &Device::flex(), Bits::Four).unwrap();
    assert_eq!(janus.precision().weights, DType::BF16);
    for (name, linear) in janus.linears_mut() {
        let bits = linear.packed().map(|packed| (packed.bits(), packed.shape()));
        let shape = linear.weight.dims();
        let expected = match name.as_str() {
            "language_model.lm_head" => Some((Bits::Eight, shape)),
            name if name.starts_with("gen_head.") => Some((Bits::Eight, shape)),
            name if name.starts_with("language_model.") => Some((Bits::Four, shape)),
            _ => None,
        };
        assert_eq!(bits, expected, "{name}");
    }
}
