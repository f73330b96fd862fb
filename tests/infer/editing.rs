//! Drawing from pictures: against PyTorch, and against itself.

use std::ops::ControlFlow;

use burn::tensor::{DType, Device, Tensor, TensorData};
use janus_infer::{
    DrawEvent, Drawing, Engine, Guidance, ImageRequest, ImageSpec, InferError, Manner, Order,
    Sampler, Sampling, Sources, draw,
};
use janus_model::processor::{ImageProcessorConfig, RgbImage8, SizeRule, Slot};
use janus_model::{LoadOptions, Parts};

use crate::common::{Expected, fixture};
use crate::shared::targets;

const MODELS: [(&str, &str); 4] = [
    ("tiny-pro/original", "tiny-pro"),
    ("tiny-pro/hf", "tiny-pro"),
    ("tiny-odd/original-bin", "tiny-odd"),
    ("tiny-odd/hf", "tiny-odd"),
];
const CHANCE: Sampler = Sampler { seed: 0, stream: 0 };

fn engine(folder: &str, parts: Parts, dtype: DType, device: &Device) -> Engine {
    let options = LoadOptions { parts, dtype: Some(dtype), ..LoadOptions::default() };
    Engine::load(&fixture(folder), device, &options).expect("a model").0
}

/// The pictures of the fixture, as they were before anything was done to them.
fn pictures(expected: &Expected, count: usize) -> Vec<RgbImage8> {
    let picture = |number| {
        let (shape, bytes) = expected.bytes(&format!("image.source.{number}"));
        RgbImage8::new(shape[1], shape[0], bytes).expect("a picture")
    };
    (0..count).map(picture).collect()
}

fn text(expected: &Expected, key: &str) -> String {
    String::from_utf8(expected.bytes(key).1).expect("words")
}

/// Prompt, codes of the pictures, and every code of the drawing, with one picture and with two.
#[test]
fn edited_codes_are_pytorchs() {
    for target in targets() {
        for (folder, model) in MODELS {
            if target.name.starts_with("flex") || folder.ends_with("hf") {
                let engine = engine(folder, Parts::All, target.dtype, &target.device);
                edited_codes(
                    &format!("{folder} on {}", target.name),
                    model,
                    &engine,
                    &target.device,
                );
            }
        }
    }
}

fn edited_codes(folder: &str, model: &str, engine: &Engine, device: &Device) {
    let (given, wanted) = (Expected::of(model), Expected::file(model, "edit.safetensors"));
    let codes = engine.janus().config().image_codes();
    let special = *engine.processor().tokenizer.special();
    // The software that imitates a graphics card here is slow.
    let cases = [("one", 1), ("two", 2)];
    for (label, count) in cases.into_iter().take(if folder.ends_with("wgpu") { 1 } else { 2 }) {
        let key = |key: &str| format!("{label}.{key}");
        let (images, wish) = (pictures(&given, count), text(&wanted, &key("wish")));
        let prompt = engine.processor().edit(&wish, count, codes).expect("a prompt");
        let ids: Vec<i32> = prompt.ids.iter().map(|id| *id as i32).collect();
        // Pictures are read in place of their placeholders, here as there.
        let placeholder = special.image_placeholder as i32;
        let theirs = wanted.ids(&key("ids")).remove(0);
        let theirs =
            theirs.iter().map(|id| if *id == placeholder { special.pad as i32 } else { *id });
        assert_eq!(ids, theirs.collect::<Vec<_>>(), "{folder} {label}");

        // The fixture's pictures are resized by the original rule, whatever the folder says.
        let usual = engine.processor().image.clone();
        let rules = &ImageProcessorConfig { size_rule: SizeRule::Original, ..usual };
        for (image, expected) in images.iter().zip(wanted.ids(&key("sources"))) {
            let pixels = rules.editing_pixels(image);
            let shape = [1, 3, pixels.side, pixels.side];
            let pixels = Tensor::from_data(TensorData::new(pixels.data, shape), device);
            let found = engine.janus().encode_codes(pixels).expect("codes").into_data();
            assert_eq!(found.iter::<i32>().collect::<Vec<_>>(), expected, "{folder} {label}");
        }

        let weights = wanted.floats(&key("weights")).1;
        let request = ImageRequest {
            images: vec![ImageSpec { prompt: ids, slots: prompt.slots, sampler: CHANCE }],
            guidance: Guidance::editing(weights[0], weights[1]),
            sampling: Sampling::GREEDY,
            pad: special.pad as i32,
            sources: Some(Sources::new(engine.janus(), rules, &images).expect("pictures")),
        };
        let drawn = draw(engine.janus(), &request, |_| ControlFlow::Continue(()));
        assert_eq!(drawn.expect("a drawing").codes, wanted.ids(&key("codes")), "{folder} {label}");
    }
}

fn tiny() -> Engine {
    engine("tiny-pro/hf", Parts::All, DType::F32, &Device::flex())
}

fn order(prompt: &str, stream: u64) -> Order {
    Order { prompt: prompt.to_owned(), sampler: Sampler { seed: 3, stream } }
}

fn edit(engine: &Engine, images: &[RgbImage8], orders: &[Order], manner: &Manner) -> Vec<Vec<i32>> {
    let mut drawn = Vec::new();
    let complete = engine.edit(images, orders, manner, |event| {
        if let DrawEvent::Finished(picture) = event {
            drawn.push(picture.codes);
        }
        ControlFlow::Continue(())
    });
    assert!(complete.expect("pictures"));
    drawn
}

#[test]
fn pictures_do_not_depend_on_those_beside_them() {
    let engine = tiny();
    let images = pictures(&Expected::of("tiny-pro"), 2);
    let orders =
        [order("bluer", 0), order("Make <image> look like <image>!", 1), order("bluer", 2)];
    let manner = |at_once| Manner {
        guidance: Guidance::editing(3.0, 2.0),
        sampling: Sampling::default(),
        at_once,
    };
    let together = edit(&engine, &images, &orders, &manner(3));
    assert_eq!(together, edit(&engine, &images, &orders, &manner(1)));
    // Every picture, its place and every weight count.
    let one = |images: &[RgbImage8], guidance| {
        edit(&engine, images, &orders[..1], &Manner { guidance, ..manner(1) }).remove(0)
    };
    let usual = manner(1).guidance;
    assert_eq!(one(&images, usual), together[0]);
    let swapped = [images[1].clone(), images[0].clone()];
    for other in [
        one(&swapped, usual),
        one(&images[..1], usual),
        one(&images, Guidance::editing(3.0, 0.0)),
        one(&images, Guidance::editing(1.0, 2.0)),
    ] {
        assert_ne!(other, together[0]);
    }
}

#[test]
fn what_does_not_go_together_is_refused() {
    let engine = tiny();
    let images = pictures(&Expected::of("tiny-pro"), 1);
    let sources = Sources::new(engine.janus(), &engine.processor().image, &images).expect("one");
    let slot = Slot { picture: 0, features: 2, codes: 148 };
    let request = |guidance, slots: Vec<Slot>, sources| ImageRequest {
        images: vec![ImageSpec { prompt: vec![560; 300], slots, sampler: CHANCE }],
        guidance,
        sampling: Sampling::GREEDY,
        pad: 562,
        sources,
    };
    let (words, editing) = (Guidance::words(5.0), Guidance::editing(5.0, 5.0));
    let with = || Some(sources.clone());
    let janus = engine.janus();
    assert!(Drawing::new(janus, &request(editing, vec![slot], with())).is_ok());
    for (request, field) in [
        (request(words, vec![slot], with()), "pictures: "),
        (request(editing, vec![slot], None), "pictures: "),
        (request(words, vec![slot], None), "pictures: "),
        (request(editing, vec![], with()), "slots: "),
        (request(editing, vec![Slot { picture: 1, ..slot }], with()), "slots: "),
        (request(editing, vec![Slot { codes: 157, ..slot }], with()), "slots: "),
        (request(Guidance::editing(5.0, -1.0), vec![slot], with()), "guidance by pictures: "),
    ] {
        let error = Drawing::new(janus, &request).expect_err(field);
        assert!(matches!(error, InferError::Request { .. }), "{error}");
        assert!(error.to_string().starts_with(field), "{error}");
    }
    assert!(Sources::new(janus, &engine.processor().image, &[]).is_err());
    let manner = Manner { guidance: editing, ..Manner::default() };
    let two = engine
        .edit(&images, &[order("<image> and <image>", 0)], &manner, |_| ControlFlow::Continue(()));
    assert!(two.is_err(), "two places, one picture");
    let half = self::engine("tiny-pro/hf", Parts::Generation, DType::F32, &Device::flex());
    let error = Sources::new(half.janus(), &half.processor().image, &images).expect_err("half");
    assert!(error.to_string().contains("vision_model"), "{error}");
}
