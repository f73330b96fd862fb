//! The small files beside the weights, in the dialect that belongs to the names.
//!
//! | file | original (DeepSeek) | Hugging Face |
//! |---|---|---|
//! | `tokenizer.json` | copied; `transformers` adds the begin token itself | copied, made to add the begin token |
//! | `tokenizer_config.json`, `special_tokens_map.json` | as published | names the image tokens, too |
//! | `processor_config.json`, `preprocessor_config.json` | `VLChatProcessor` | `JanusProcessor` |
//! | `chat_template.jinja` | – | as in SRC, else the usual one |

use std::path::Path;

use burn::tensor::DType;
use janus_model::JanusConfig;
use janus_model::config::{GenerationConfig, TokenIds};
use janus_model::processor::{ChatStyle, ImageProcessorConfig, JanusTokenizer, Processor};
use serde_json::{Map, Value, json};

use crate::args::Names;
use crate::report::{Exit, Failure};
use crate::target::Staging;
use crate::units::torch_name;

/// Licences travel with the weights they belong to.
const LICENCES: [&str; 4] = ["LICENSE", "LICENSE-MODEL", "LICENSE-CODE", "NOTICE"];
/// Far above any chat template or licence.
const MAX_TEXT_BYTES: u64 = 1 << 20;

const CHAT_TEMPLATE: &str = "{%- for message in messages -%}\
{%- if message['role'] == 'user' -%}{{ '<|User|>: ' }}{%- else -%}{{ '<|Assistant|>: ' }}{%- endif -%}\
{%- if message['content'] is string -%}{{ message['content'] }}{%- else -%}\
{%- for part in message['content'] -%}\
{%- if part['type'] == 'image' -%}{{ '<image_placeholder>' }}{%- else -%}{{ part['text'] }}{%- endif -%}\
{%- if not loop.last -%}{{ '\\n' }}{%- endif -%}\
{%- endfor -%}{%- endif -%}\
{%- if message['role'] == 'user' -%}{{ '\\n\\n' }}{%- else -%}{{ eos_token }}{%- endif -%}\
{%- endfor -%}\
{%- if add_generation_prompt -%}{{ '<|Assistant|>:' }}{%- endif -%}\n";

/// What the companion files of a folder say.
pub struct Companions {
    processor: Option<Processor>,
    tokenizer_json: Option<Vec<u8>>,
    chat_template: Option<String>,
    licences: Vec<(&'static str, Vec<u8>)>,
    /// What its makers advise.
    pub advice: GenerationConfig,
    /// Longest text, in tokens.
    limit: Option<usize>,
}

impl Companions {
    /// Reads them from a model folder. A folder without `tokenizer.json` has none.
    ///
    /// # Errors
    /// Files that are there and cannot be used.
    pub fn read(dir: &Path, config: &JanusConfig) -> Result<Self, Failure> {
        let has_tokenizer = dir.join("tokenizer.json").exists();
        let processor = has_tokenizer.then(|| Processor::for_model(dir, config)).transpose()?;
        let tokenizer_json =
            has_tokenizer.then(|| read(&dir.join("tokenizer.json"), u64::MAX)).transpose()?;
        let template = optional(&dir.join("chat_template.jinja"))?;
        let mut licences = Vec::new();
        for name in LICENCES {
            licences.extend(optional(&dir.join(name))?.map(|text| (name, text)));
        }
        let chat_template = template.and_then(|bytes| String::from_utf8(bytes).ok());
        let limit = processor.as_ref().and_then(|processor| processor.tokenizer.max_length());
        let advice = GenerationConfig::from_dir(dir)?;
        Ok(Self { processor, tokenizer_json, chat_template, licences, advice, limit })
    }

    /// Those of a new model, with the tokenizer in `dir` and the published rules for pictures.
    ///
    /// # Errors
    /// The tokenizer cannot be read.
    pub fn new(
        dir: &Path,
        tokenizer: JanusTokenizer,
        config: &JanusConfig,
    ) -> Result<Self, Failure> {
        let side = config.vision.image_size;
        let usual = ImageProcessorConfig::default();
        let image =
            ImageProcessorConfig { image_size: side, min_size: usual.min_size.min(side), ..usual };
        let positions = config.language.max_position_embeddings;
        let processor = Processor {
            tokenizer,
            image,
            num_image_tokens: config.image_tokens(),
            style: ChatStyle::Pro,
            context_length: positions,
        };
        Ok(Self {
            processor: Some(processor),
            tokenizer_json: Some(read(&dir.join("tokenizer.json"), u64::MAX)?),
            chat_template: None,
            licences: Vec::new(),
            advice: GenerationConfig::default(),
            limit: Some(positions),
        })
    }

    /// Writes `config.json` and all companions of a model folder.
    ///
    /// # Errors
    /// See [`Companions::files`] and [`Staging::write`].
    pub fn write(
        &self,
        staging: &Staging,
        config: &JanusConfig,
        names: Names,
        dtype: DType,
    ) -> Result<(), Failure> {
        let text = config.to_json(names.dialect(), torch_name(dtype), self.ids());
        staging.write("config.json", text.as_bytes())?;
        if let (Names::Hf, Some(ids)) = (names, self.ids()) {
            let text = config.generation_json(ids, self.advice);
            staging.write("generation_config.json", text.as_bytes())?;
        }
        for (name, content) in self.files(names, config.image_tokens())? {
            staging.write(&name, &content)?;
        }
        Ok(())
    }

    /// Whether there is a tokenizer.
    pub fn has_tokenizer(&self) -> bool {
        self.processor.is_some()
    }

    /// The ids that Hugging Face's configuration repeats.
    pub fn ids(&self) -> Option<TokenIds> {
        let special = self.processor.as_ref()?.tokenizer.special();
        // A tokenizer that loaded has ids below 2^24.
        let id = |id: u32| i32::try_from(id).unwrap_or(i32::MAX);
        Some(TokenIds {
            bos: id(special.bos),
            eos: id(special.eos),
            pad: id(special.pad),
            image_placeholder: id(special.image_placeholder),
            begin_of_image: id(special.begin_of_image),
        })
    }

    /// Name and content of every companion file of a folder with these names.
    ///
    /// # Errors
    /// `tokenizer.json` is not the JSON it was a moment ago.
    pub fn files(
        &self,
        names: Names,
        image_tokens: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, Failure> {
        let mut files: Vec<(String, Vec<u8>)> =
            self.licences.iter().map(|(name, text)| ((*name).to_owned(), text.clone())).collect();
        let (Some(processor), Some(tokenizer_json)) = (&self.processor, &self.tokenizer_json)
        else {
            return Ok(files);
        };
        let tokens = Tokens::of(&processor.tokenizer);
        let limit = self.limit;
        let mut add = |name: &str, value: Value| {
            files.push((name.to_owned(), format!("{value:#}\n").into_bytes()));
        };
        match names {
            Names::Original => {
                add("tokenizer_config.json", original_tokenizer_config(&tokens, limit));
                add(
                    "special_tokens_map.json",
                    original_special_tokens(&tokens, &processor.tokenizer),
                );
                add("processor_config.json", original_processor(image_tokens));
                add("preprocessor_config.json", original_preprocessor(&processor.image));
                files.push(("tokenizer.json".into(), tokenizer_json.clone()));
            }
            Names::Hf => {
                add("tokenizer_config.json", hf_tokenizer_config(&tokens, limit));
                add("special_tokens_map.json", tokens.hf_names());
                add("processor_config.json", hf_processor(image_tokens));
                add("preprocessor_config.json", hf_preprocessor(&processor.image));
                files.push(("tokenizer.json".into(), with_begin_token(tokenizer_json, &tokens)?));
                let usual = || chat_template(processor.style);
                let template = self.chat_template.clone().unwrap_or_else(usual);
                files.push(("chat_template.jinja".into(), template.into_bytes()));
            }
        }
        Ok(files)
    }
}

/// The files of a tokenizer alone, as Hugging Face has them. Its text must put the begin token first.
pub fn tokenizer_files(tokenizer: &JanusTokenizer, json: &str) -> Vec<(&'static str, Vec<u8>)> {
    let tokens = Tokens::of(tokenizer);
    let text = |value: Value| format!("{value:#}\n").into_bytes();
    vec![
        ("tokenizer.json", json.as_bytes().to_vec()),
        ("tokenizer_config.json", text(hf_tokenizer_config(&tokens, tokenizer.max_length()))),
        ("special_tokens_map.json", text(tokens.hf_names())),
    ]
}

/// Janus-1.3B writes its roles as plain words.
fn chat_template(style: ChatStyle) -> String {
    match style {
        ChatStyle::Pro => CHAT_TEMPLATE.to_owned(),
        ChatStyle::Janus1_3b => {
            CHAT_TEMPLATE.replace("<|User|>", "User").replace("<|Assistant|>", "Assistant")
        }
    }
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let length = std::fs::metadata(path).map_err(|e| Failure::io(path, "read", &e))?.len();
    if length > limit {
        let message = format!("{}: {length} bytes, the limit is {limit}", path.display());
        return Err(Failure::new(Exit::BadData, message));
    }
    std::fs::read(path).map_err(|e| Failure::io(path, "read", &e))
}

fn optional(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    if path.is_file() { read(path, MAX_TEXT_BYTES).map(Some) } else { Ok(None) }
}

/// The special tokens as strings.
struct Tokens {
    bos: String,
    eos: String,
    pad: String,
    begin_of_image: String,
    end_of_image: String,
    image: String,
    bos_id: u32,
}

impl Tokens {
    fn of(tokenizer: &JanusTokenizer) -> Self {
        let ids = tokenizer.special();
        let text = |id| tokenizer.token(id).unwrap_or_default();
        Self {
            bos: text(ids.bos),
            eos: text(ids.eos),
            pad: text(ids.pad),
            begin_of_image: text(ids.begin_of_image),
            end_of_image: text(ids.end_of_image),
            image: text(ids.image_placeholder),
            bos_id: ids.bos,
        }
    }

    fn hf_names(&self) -> Value {
        json!({
            "bos_token": self.bos, "eos_token": self.eos, "pad_token": self.pad,
            "boi_token": self.begin_of_image, "eoi_token": self.end_of_image,
            "image_token": self.image,
        })
    }
}

fn original_tokenizer_config(tokens: &Tokens, limit: Option<usize>) -> Value {
    json!({
        "bos_token": tokens.bos, "eos_token": tokens.eos, "pad_token": null, "unk_token": null,
        "model_max_length": limit.unwrap_or(16_384), "tokenizer_class": "LlamaTokenizer",
        "clean_up_tokenization_spaces": false, "use_default_system_prompt": true,
    })
}

fn original_special_tokens(tokens: &Tokens, tokenizer: &JanusTokenizer) -> Value {
    const ADDITIONAL: [&str; 8] = [
        "<patch_placeholder>",
        "<|ref|>",
        "<|/ref|>",
        "<|det|>",
        "<|/det|>",
        "<|grounding|>",
        "<|User|>",
        "<|Assistant|>",
    ];
    let known = ADDITIONAL.into_iter().filter(|token| tokenizer.id(token).is_some());
    let additional: Vec<&str> = std::iter::once(tokens.image.as_str()).chain(known).collect();
    json!({
        "additional_special_tokens": additional,
        "bos_token": tokens.bos, "eos_token": tokens.eos, "pad_token": tokens.pad,
    })
}

fn original_processor(image_tokens: usize) -> Value {
    json!({
        "add_special_token": false, "ignore_id": -100, "image_tag": "<image_placeholder>",
        "mask_prompt": true, "num_image_tokens": image_tokens,
        "processor_class": "VLChatProcessor", "sft_format": "deepseek",
    })
}

fn original_preprocessor(image: &ImageProcessorConfig) -> Value {
    json!({
        "background_color": image.background_color, "do_normalize": image.do_normalize,
        "image_mean": image.image_mean, "image_std": image.image_std,
        "image_processor_type": "VLMImageProcessor", "processor_class": "VLChatProcessor",
        "image_size": image.image_size, "min_size": image.min_size,
        "rescale_factor": image.rescale_factor,
    })
}

fn hf_tokenizer_config(tokens: &Tokens, limit: Option<usize>) -> Value {
    let mut config = Map::new();
    if let Value::Object(names) = tokens.hf_names() {
        config.extend(names);
    }
    // Older releases of transformers take the image tokens from here.
    let image_tokens = json!({
        "boi_token": tokens.begin_of_image, "eoi_token": tokens.end_of_image,
        "image_token": tokens.image,
    });
    config.insert("extra_special_tokens".into(), image_tokens);
    config.insert("model_max_length".into(), limit.unwrap_or(16_384).into());
    config.insert("clean_up_tokenization_spaces".into(), false.into());
    config.insert("processor_class".into(), "JanusProcessor".into());
    config.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
    config.insert("padding_side".into(), "left".into());
    Value::Object(config)
}

fn hf_processor(image_tokens: usize) -> Value {
    json!({
        "num_image_tokens": image_tokens, "processor_class": "JanusProcessor",
        "use_default_system_prompt": true,
    })
}

fn hf_preprocessor(image: &ImageProcessorConfig) -> Value {
    json!({
        "do_normalize": image.do_normalize, "do_rescale": true, "do_resize": true,
        "image_mean": image.image_mean, "image_std": image.image_std,
        "image_processor_type": "JanusImageProcessor", "processor_class": "JanusProcessor",
        "min_size": image.min_size, "resample": 3, "rescale_factor": image.rescale_factor,
        "size": {"height": image.image_size, "width": image.image_size},
    })
}

/// DeepSeek's tokenizer class puts the begin token first, whatever the file says; a general fast
/// tokenizer does what the file says. So the file is made to say it, once.
fn with_begin_token(tokenizer: &[u8], tokens: &Tokens) -> Result<Vec<u8>, Failure> {
    let broken = |e: serde_json::Error| {
        Failure::new(Exit::BadData, format!("tokenizer.json is not JSON: {e}"))
    };
    let mut json: Value = serde_json::from_slice(tokenizer).map_err(broken)?;
    let existing = json.get("post_processor").cloned().unwrap_or(Value::Null);
    if mentions(&existing, &tokens.bos) {
        return Ok(tokenizer.to_vec());
    }
    let begin = json!({"SpecialToken": {"id": tokens.bos, "type_id": 0}});
    let text = |id: &str, kind: u8| json!({"Sequence": {"id": id, "type_id": kind}});
    let template = json!({
        "type": "TemplateProcessing",
        "single": [begin, text("A", 0)],
        "pair": [begin, text("A", 0), text("B", 1)],
        "special_tokens": {
            &tokens.bos: {"id": tokens.bos, "ids": [tokens.bos_id], "tokens": [tokens.bos]},
        },
    });
    json["post_processor"] = match existing {
        Value::Null => template,
        other => json!({"type": "Sequence", "processors": [other, template]}),
    };
    serde_json::to_vec_pretty(&json).map_err(broken)
}

/// Whether a text occurs as a string or key anywhere in a value.
fn mentions(value: &Value, text: &str) -> bool {
    match value {
        Value::String(found) => found == text,
        Value::Array(items) => items.iter().any(|item| mentions(item, text)),
        Value::Object(map) => map.iter().any(|(key, item)| key == text || mentions(item, text)),
        _ => false,
    }
}
