//! The native format: one conversation per line.
//!
//! ```json
//! {"messages": [{"role": "user", "content": "<image>What is it?"},
//!               {"role": "assistant", "content": "A cat."}], "images": ["cat.png"]}
//! {"messages": [{"role": "user", "content": "a red cat"},
//!               {"role": "assistant", "content": "<image>"}], "images": ["red.png"]}
//! ```
//! An `<image>` in a user's turn is read, one in an assistant's turn is drawn. A `system` message
//! may come first; `"loss": false` keeps an answer from being learnt. Content may be a list of
//! parts as in OpenAI's API, whose pictures may carry their own paths.

use janus_model::processor::{IMAGE_PLACE, Role};
use serde_json::{Map, Value};

use super::super::error::{Why, shown};
use super::super::sample::{Picture, Sample};
use super::files::Root;
use super::rows::{field, picture, pictures, text_field};

/// A conversation.
pub(super) fn sample(fields: &Map<String, Value>, root: &Root) -> Result<Sample, Why> {
    let Some(Value::Array(messages)) = field(fields, "messages") else {
        return Err(Why::Record("no list \"messages\"".to_owned()));
    };
    let listed = pictures(fields, "images", root)?;
    let (mut system, mut turns, mut own) = (None, Vec::new(), Vec::new());
    for (number, message) in messages.iter().enumerate() {
        let wrong = |problem: String| Why::Record(format!("message {}: {problem}", number + 1));
        let Value::Object(message) = message else {
            return Err(wrong("not an object".to_owned()));
        };
        let content = content(message, root, &mut own).map_err(|why| match why {
            Why::Record(problem) => wrong(problem),
            other => other,
        })?;
        let learnt = field(message, "loss").is_none_or(|loss| loss.as_bool() != Some(false));
        match text_field(message, "role")? {
            "user" => turns.push((Role::User, content, learnt)),
            "assistant" => turns.push((Role::Assistant, content, learnt)),
            "system" if number == 0 => system = Some(content),
            "system" => return Err(wrong("the system message is not the first".to_owned())),
            other => return Err(wrong(format!("unknown role \"{}\"", shown(other)))),
        }
    }
    if !own.is_empty() && !listed.is_empty() {
        let problem = "pictures both in \"images\" and in the messages".to_owned();
        return Err(Why::Record(problem));
    }
    let pictures = if own.is_empty() { listed } else { own };
    Sample::conversation(system, turns, pictures)
}

/// Text, with a place for each picture among the parts; pictures with a path go to `own`.
fn content(
    message: &Map<String, Value>,
    root: &Root,
    own: &mut Vec<Picture>,
) -> Result<String, Why> {
    let Some(Value::Array(parts)) = field(message, "content") else {
        return text_field(message, "content").map(str::to_owned);
    };
    let mut text = String::new();
    for part in parts {
        let Value::Object(fields) = part else {
            return Err(Why::Record("a part of the content is no object".to_owned()));
        };
        match text_field(fields, "type")? {
            "text" => text.push_str(text_field(fields, "text")?),
            "image" | "image_url" => {
                text.push_str(IMAGE_PLACE);
                let given = ["image", "image_url", "path", "url"];
                let given = given.iter().find_map(|name| Some((*name, field(fields, name)?)));
                if let Some((name, value)) = given {
                    own.push(picture(value.get("url").unwrap_or(value), name, root)?);
                }
            }
            other => {
                return Err(Why::Record(format!("unknown kind of part \"{}\"", shown(other))));
            }
        }
    }
    Ok(text)
}
