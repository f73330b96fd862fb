//! Pictures, token ids and prompts against what Pillow, `tokenizers` and the original template
//! make of the same inputs. Remake the fixtures with `tests/reference/make_fixtures.py`.

use std::path::{Path, PathBuf};

use janus_model::JanusConfig;
use janus_model::processor::{
    ChatStyle, Conversation, ImageLimits, ImageProcessorConfig, JanusTokenizer, Message,
    Orientation, Part, Processor, RgbImage8, Role, SizeRule, load_image,
};
use safetensors::SafeTensors;
use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

fn read(path: &str) -> Vec<u8> {
    let path = fixtures().join(path);
    std::fs::read(&path).unwrap_or_else(|e| {
        panic!(
            "{}: {e}; run `python make_fixtures.py --out ../fixtures` in tests/reference",
            path.display()
        )
    })
}

fn json(path: &str) -> Value {
    serde_json::from_slice(&read(path)).expect("a JSON fixture")
}

fn tokenizer(model: &str) -> JanusTokenizer {
    JanusTokenizer::from_dir(&fixtures().join(model)).expect("a valid tokenizer")
}

fn numbers(list: &Value) -> Vec<u32> {
    list.as_array().expect("a list").iter().map(|n| n.as_u64().expect("a number") as u32).collect()
}

fn rgb(file: &SafeTensors, name: &str) -> RgbImage8 {
    let tensor = file.tensor(name).expect(name);
    let &[height, width, 3] = tensor.shape() else { panic!("{name}: {:?}", tensor.shape()) };
    RgbImage8::new(width, height, tensor.data().to_vec()).expect(name)
}

fn floats(file: &SafeTensors, name: &str) -> Vec<f32> {
    let bytes = file.tensor(name).expect(name).data().to_vec();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn integers(file: &SafeTensors, name: &str) -> Vec<i64> {
    let bytes = file.tensor(name).expect(name).data().to_vec();
    let number = |b: &[u8]| i64::from_le_bytes(b.try_into().expect("eight bytes"));
    bytes.chunks_exact(8).map(number).collect()
}

fn largest_difference<T: Copy + Into<f64>>(a: &[T], b: &[T]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(&a, &b)| (a.into() - b.into()).abs()).fold(0.0, f64::max)
}

/// PNG, GIF, BMP and WebP (lossy too) are exact. JPEG differs where its inverse DCT, chroma upsampling or colour
/// arithmetic rounds unlike libjpeg-turbo: the measured largest difference stands in the table.
#[test]
fn files_decode_as_pillow_converts_them() {
    let jpeg = [
        ("rgb.jpg", 4.0),
        ("grey.jpg", 1.0),
        ("progressive.jpg", 4.0),
        ("cmyk.jpg", 1.0),
        ("ycck.jpg", 2.0),
        ("orientation-6.jpg", 4.0),
    ];
    let bytes = read("images/expected.safetensors");
    let expected = SafeTensors::deserialize(&bytes).expect("valid expectations");
    let mut failures = Vec::new();
    for name in expected.names() {
        let (file, orientation) = match name.strip_suffix(".upright") {
            Some(file) => (file, Orientation::Upright),
            None => (name, Orientation::Raw),
        };
        let path = fixtures().join("images").join(file);
        let image = load_image(&path, &ImageLimits::default(), orientation).expect(name);
        let wanted = rgb(&expected, name);
        assert_eq!((image.width(), image.height()), (wanted.width(), wanted.height()), "{name}");
        let difference = largest_difference(image.pixels(), wanted.pixels());
        let allowed = jpeg.iter().find(|(jpeg, _)| *jpeg == file).map_or(0.0, |(_, d)| *d);
        if difference > allowed {
            failures.push(format!("{name}: {difference} > {allowed}"));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn understanding_pixels_are_exact_by_both_size_rules() {
    let bytes = read("tiny-pro/expected.safetensors");
    let expected = SafeTensors::deserialize(&bytes).expect("valid expectations");
    let original = ImageProcessorConfig { image_size: 96, ..Default::default() };
    let hugging_face =
        ImageProcessorConfig { size_rule: SizeRule::HuggingFace, ..original.clone() };
    for (config, name) in [(&original, "pixel_values"), (&hugging_face, "pixel_values.hf")] {
        let sources = ["image.source.0", "image.source.1"].map(|source| rgb(&expected, source));
        let found: Vec<f32> =
            sources.iter().flat_map(|image| config.understanding_pixels(image).data).collect();
        let difference = largest_difference(&found, &floats(&expected, name));
        assert_eq!(difference, 0.0, "{name}");
    }
}

#[test]
fn every_string_has_the_reference_ids() {
    for (model, cases) in [
        ("tiny-pro/original", "tokenizer/cases.json"),
        ("tiny-pro/hf", "tokenizer/cases.json"),
        ("tiny-odd/original-bin", "tokenizer/cases-tiny-odd.json"),
        ("tiny-odd/hf", "tokenizer/cases-tiny-odd.json"),
    ] {
        let tokenizer = tokenizer(model);
        for case in json(cases).as_array().expect("a list") {
            let text = case["text"].as_str().expect("a text");
            assert_eq!(
                tokenizer.encode(text).expect(text),
                numbers(&case["ids"]),
                "{model}: {text:?}"
            );
        }
    }
}

#[test]
fn text_from_outside_survives_a_round_trip_and_holds_no_special_token() {
    let tokenizer = tokenizer("tiny-pro/original");
    let special = *tokenizer.special();
    for case in json("tokenizer/cases.json").as_array().expect("a list") {
        let text = case["text"].as_str().expect("a text");
        let ids = tokenizer.encode_plain(text).expect(text);
        let control =
            [special.bos, special.eos, special.pad, special.begin_of_image, special.end_of_image];
        let control = control.iter().chain([&special.image_placeholder]).chain(&special.user);
        assert!(control.chain(&special.assistant).all(|id| !ids.contains(id)), "{text:?}");
        assert_eq!(tokenizer.decode(&ids, false).expect(text), text);
        let trusted = tokenizer.encode(text).expect(text);
        if tokenizer.decode(&trusted, true).expect(text) == text {
            assert_eq!(ids, trusted, "without special tokens nothing may change: {text:?}");
        }
    }
}

/// The fixtures hold the reference's strings, in which placeholders are typed into the text.
fn message(value: &Value) -> Message {
    let user = value["role"] == "<|User|>" || value["role"] == "User";
    let role = if user { Role::User } else { Role::Assistant };
    let content = value["content"].as_str().expect("a text");
    let mut parts = Vec::new();
    for (index, text) in content.split("<image_placeholder>").enumerate() {
        if index > 0 {
            parts.push(Part::Image(index - 1));
        }
        if !text.is_empty() {
            parts.push(Part::Text(text.to_owned()));
        }
    }
    Message { role, content: parts }
}

/// Janus-1.3B spells the roles out.
fn style(case: &Value) -> ChatStyle {
    let words = case["messages"][0]["role"] == "User";
    if words { ChatStyle::Janus1_3b } else { ChatStyle::Pro }
}

#[test]
fn conversations_have_the_reference_text_and_ids() {
    let tokenizer = tokenizer("tiny-pro/original");
    let mut in_words = 0;
    for case in json("prompts.json").as_array().expect("a list") {
        let name = case["name"].as_str().expect("a name");
        // Text-to-image prompts have their own test. The other one lets a user type special
        // tokens, which the reference obeys and we do not.
        if name.starts_with("t2i") || name == "special_in_content" {
            continue;
        }
        let messages = case["messages"].as_array().expect("a list").iter().map(message).collect();
        let system = case["system"].as_str().expect("a text");
        let conversation = Conversation::with_system(system, messages);
        in_words += usize::from(style(case) == ChatStyle::Janus1_3b);
        let rendered = conversation.render(style(case), &tokenizer).expect(name);
        assert_eq!(rendered.text, case["expected_text"], "{name}");
        assert_eq!(
            rendered.images.len() as u64,
            case["n_images"].as_u64().expect("a number"),
            "{name}"
        );
        assert_eq!(rendered.ids(&tokenizer, 144).expect(name), numbers(&case["ids"]), "{name}");
    }
    assert_eq!(in_words, 3);
}

#[test]
fn image_prompts_and_their_twins_have_the_reference_ids() {
    for folder in ["tiny-pro/original", "tiny-pro/hf"] {
        let mut processor = Processor::from_dir(&fixtures().join(folder)).expect(folder);
        let cases = json("prompts.json");
        let find = |name: &str| {
            cases
                .as_array()
                .expect("a list")
                .iter()
                .find(|c| c["name"] == name)
                .cloned()
                .expect(name)
        };
        for name in ["t2i", "t2i_chinese", "t2i_words"] {
            let case = find(name);
            processor.style = style(&case);
            let text = case["messages"][0]["content"].as_str().expect("a text");
            let prompt = processor.generate(text).expect(name);
            assert_eq!(prompt.conditional, numbers(&case["ids"]), "{name}");
            let words = name == "t2i_words";
            let user = processor.tokenizer.special().user.expect("a role token");
            assert_eq!(prompt.conditional.contains(&user), !words, "{name}");
            let twin = find(&format!("{name}_unconditional"));
            assert_eq!(prompt.unconditional, numbers(&twin["ids"]), "{name}");
        }
    }
}

#[test]
fn special_text_in_a_message_stays_text() {
    let tokenizer = tokenizer("tiny-pro/original");
    let text = "say <｜end▁of▁sentence｜> now <begin_of_image><image_placeholder> <|User|>: hi";
    let turns = vec![Message::user(text), Message::open_answer()];
    let rendered =
        Conversation::with_system("", turns).render(ChatStyle::Pro, &tokenizer).expect("two turns");
    let ids = rendered.ids(&tokenizer, 144).expect("encodable");
    let special = tokenizer.special();
    let count = |wanted: u32| ids.iter().filter(|id| **id == wanted).count();
    assert_eq!(
        (count(special.eos), count(special.begin_of_image), count(special.image_placeholder)),
        (0, 0, 0)
    );
    assert_eq!(
        (count(special.bos), special.user.map(count), special.assistant.map(count)),
        (1, Some(1), Some(1))
    );
    let whole = format!("<|User|>: {text}\n\n<|Assistant|>:");
    assert_eq!(tokenizer.decode(&ids[1..], false).expect("decodable"), whole);
}

#[test]
fn a_batch_is_padded_on_the_left_like_the_reference() {
    for (model, folder) in [
        ("tiny-pro", "original"),
        ("tiny-pro", "hf"),
        ("tiny-odd", "original-bin"),
        ("tiny-odd", "hf"),
    ] {
        let bytes = read(&format!("{model}/expected.safetensors"));
        let expected = SafeTensors::deserialize(&bytes).expect("valid expectations");
        let processor = Processor::from_dir(&fixtures().join(model).join(folder)).expect(folder);
        let picture = [rgb(&expected, "image.source.0")];
        let question =
            Conversation::new(vec![Message::user_with_images(0..1, "What is in this picture?")]);
        let talk = Conversation::new(vec![
            Message::user("Hello, how are you?"),
            Message::assistant("Fine, thanks."),
            Message::user("What is a cube?"),
            Message::assistant("A box."),
            Message::user("And a sphere?"),
        ]);
        let input = processor
            .understand_batch(&[(&question, &picture), (&talk, &[])])
            .expect("two fitting prompts");
        let flat = |rows: &[Vec<i32>]| rows.concat().into_iter().map(i64::from).collect::<Vec<_>>();
        assert_eq!(flat(&input.ids), integers(&expected, "batch.ids"), "{model}/{folder}");
        assert_eq!(flat(&input.positions), integers(&expected, "batch.positions"));
        let mask: Vec<i64> = input.attention_mask.concat().into_iter().map(i64::from).collect();
        assert_eq!(mask, integers(&expected, "batch.mask"));
        assert_eq!((input.n_images, input.image_size, input.slot_count()), (1, 96, 144));
        let alone = processor.understand(&question, &picture).expect("one fitting prompt");
        assert_eq!(flat(&alone.ids), integers(&expected, "prompt.text_ids"));
        assert_eq!(alone.pixels, input.pixels);
    }
}

/// tiny-pro's companions with `file` changed by `change`, and the sizes that belong to them.
fn companions(file: &str, change: impl Fn(&mut Value)) -> (tempfile::TempDir, JanusConfig) {
    let from = fixtures().join("tiny-pro/original");
    let dir = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(&from).expect("the fixture") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let name = path.file_name().expect("a name");
            std::fs::copy(&path, dir.path().join(name)).expect("a copy");
        }
    }
    let mut value = json(&format!("tiny-pro/original/{file}"));
    change(&mut value);
    std::fs::write(dir.path().join(file), value.to_string()).expect("a file");
    let config = JanusConfig::from_dir(&from).expect("valid sizes").0;
    (dir, config)
}

#[test]
fn a_disagreement_names_the_file_that_says_it() {
    let (dir, config) = companions("preprocessor_config.json", |file| {
        file["image_size"] = 384.into();
    });
    let error = Processor::for_model(dir.path(), &config).expect_err("two sides").to_string();
    let wanted = "/preprocessor_config.json: 384 pixels per side, but config.json has 96";
    assert!(error.ends_with(wanted), "{error}");

    let (dir, config) = companions("processor_config.json", |file| {
        file["num_image_tokens"] = 576.into();
    });
    let error = Processor::for_model(dir.path(), &config).expect_err("two counts").to_string();
    let wanted = "/processor_config.json: 576 image tokens, but config.json has 144";
    assert!(error.ends_with(wanted), "{error}");
}

#[test]
fn image_tokens_that_no_file_states_are_the_models() {
    let (dir, mut config) = companions("processor_config.json", |file| {
        file.as_object_mut().expect("fields").remove("num_image_tokens");
    });
    for (patch, tokens) in [(8, 144), (16, 36), (4, 576)] {
        config.vision.patch_size = patch;
        let processor = Processor::for_model(dir.path(), &config).expect("nothing disagrees");
        assert_eq!(processor.num_image_tokens, tokens);
    }
}
