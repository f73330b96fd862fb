//! One line of a JSONL file: a question or a conversation, and its pictures.

use std::fmt::Display;
use std::fs;
use std::path::{Component, Path, PathBuf};

use janus_model::processor::Role;
use serde_json::Value;

use super::rows::{Row, Task};
use crate::report::{Exit, Failure};

/// The folder a file lies in.
pub fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// One line of a file.
pub struct Place<'a> {
    /// The file.
    pub path: &'a Path,
    /// Where its pictures must lie.
    pub root: &'a Path,
    /// The line, from 1.
    pub number: u64,
    /// Of one question.
    pub max_images: usize,
}

impl Place<'_> {
    fn name(&self) -> String {
        format!("{}:{}", self.path.display(), self.number)
    }

    fn bad(&self, problem: impl Display) -> Failure {
        Failure::new(Exit::BadData, problem.to_string()).at(&self.name())
    }

    /// A line that has not even an id.
    pub fn unusable(&self, problem: impl Display) -> Row {
        Row { id: self.number.into(), place: None, task: Err(self.bad(problem)) }
    }

    /// What a line asks for.
    pub fn row(&self, line: &str) -> Row {
        let value: Value = match serde_json::from_str(line) {
            Ok(value) => value,
            Err(error) => return self.unusable(format!("not JSON: {error}")),
        };
        let id = match value.get("id") {
            Some(id @ (Value::String(_) | Value::Number(_))) => id.clone(),
            _ => self.number.into(),
        };
        let task = self.task(&value).map_err(|problem| self.bad(problem));
        // Problems of the line itself name it already.
        let place = task.is_ok().then(|| self.name());
        Row { id, place, task }
    }

    fn task(&self, value: &Value) -> Result<Task, String> {
        let Value::Object(fields) = value else { return Err("not a JSON object".into()) };
        if let Some(id) =
            fields.get("id").filter(|id| !id.is_string() && !id.is_number() && !id.is_null())
        {
            return Err(format!("\"id\" is {}, not text or a number", kind(id)));
        }
        let images = images(fields.get("images").unwrap_or(&Value::Null))?;
        if images.len() > self.max_images {
            let (found, limit) = (images.len(), self.max_images);
            return Err(format!("{found} pictures, but --max-images is {limit}"));
        }
        let paths = images.iter().map(|image| self.inside(image)).collect::<Result<_, _>>()?;
        let mut system = optional_text(fields.get("system"), "system")?;
        let turns = match (fields.get("question"), fields.get("messages")) {
            (Some(_), Some(_)) => return Err("both \"question\" and \"messages\"".into()),
            (None, None) => return Err("neither \"question\" nor \"messages\"".into()),
            (Some(question), None) => vec![(Role::User, text(question, "question")?)],
            (None, Some(messages)) => turns(messages, &mut system)?,
        };
        if turns.last().is_none_or(|(_, text)| text.trim().is_empty()) && images.is_empty() {
            return Err("the question is empty".into());
        }
        Ok(Task { images, paths, turns, system })
    }

    /// Where a picture lies: links included, below the root. A missing one is found out later,
    /// in the words used for every picture.
    fn inside(&self, image: &str) -> Result<PathBuf, String> {
        let path = folder_of(self.path).join(image);
        let climbs = Path::new(image).components().any(|part| part == Component::ParentDir);
        let inside = match fs::canonicalize(&path) {
            Ok(real) => real.starts_with(self.root),
            Err(_) => !climbs && Path::new(image).is_relative(),
        };
        if !inside || image.contains('\0') {
            return Err(format!("picture {image:?} lies outside of --data-root"));
        }
        Ok(path)
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn text(value: &Value, field: &str) -> Result<String, String> {
    let text = value.as_str().ok_or_else(|| format!("\"{field}\" is {}, not text", kind(value)))?;
    Ok(text.to_owned())
}

fn optional_text(value: Option<&Value>, field: &str) -> Result<Option<String>, String> {
    value.filter(|value| !value.is_null()).map(|value| text(value, field)).transpose()
}

fn images(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(one) => Ok(vec![one.clone()]),
        Value::Array(all) => all.iter().map(|image| text(image, "images")).collect(),
        other => Err(format!("\"images\" is {}, not a list of paths", kind(other))),
    }
}

/// Turns of the messages format; a first one of the system's becomes `system`.
fn turns(value: &Value, system: &mut Option<String>) -> Result<Vec<(Role, String)>, String> {
    let messages =
        value.as_array().ok_or_else(|| format!("\"messages\" is {}, not a list", kind(value)))?;
    let mut turns = Vec::new();
    for (number, message) in messages.iter().enumerate() {
        let field = |name: &str| {
            let place = format!("messages[{number}].{name}");
            message
                .get(name)
                .ok_or_else(|| format!("{place} is missing"))
                .and_then(|v| text(v, &place))
        };
        let content = field("content")?;
        match field("role")?.as_str() {
            "user" => turns.push((Role::User, content)),
            "assistant" => turns.push((Role::Assistant, content)),
            "system" if number == 0 && system.is_none() => *system = Some(content),
            "system" => return Err(format!("messages[{number}]: a second system text")),
            role => {
                return Err(format!(
                    "messages[{number}].role is {role:?}, not \"user\", \"assistant\" or \"system\""
                ));
            }
        }
    }
    Ok(turns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(line: &str) -> Result<Task, String> {
        let place =
            Place { path: Path::new("in.jsonl"), root: Path::new("/"), number: 3, max_images: 2 };
        let value = serde_json::from_str(line).map_err(|e| e.to_string())?;
        place.task(&value)
    }

    #[test]
    fn both_kinds_of_lines_are_understood() {
        let short =
            task(r#"{"question": "why?", "images": "a.png", "id": 7, "extra": 1}"#).unwrap();
        assert_eq!(short.turns, [(Role::User, "why?".to_owned())]);
        assert_eq!((short.images, short.paths), (vec!["a.png".into()], vec!["./a.png".into()]));
        let long = r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]}"#;
        let long = task(long).unwrap();
        assert_eq!((long.turns.len(), long.system.as_deref()), (3, Some("s")));
    }

    #[test]
    fn whatever_is_wrong_is_named() {
        let wrong = |line: &str| task(line).unwrap_err();
        assert_eq!(wrong("[]"), "not a JSON object");
        assert_eq!(wrong("{}"), "neither \"question\" nor \"messages\"");
        assert_eq!(wrong(r#"{"question": null}"#), "\"question\" is null, not text");
        assert_eq!(wrong(r#"{"question": " "}"#), "the question is empty");
        assert_eq!(
            wrong(r#"{"question": "a", "id": []}"#),
            "\"id\" is a list, not text or a number"
        );
        assert_eq!(
            wrong(r#"{"question": "a", "images": [1]}"#),
            "\"images\" is a number, not text"
        );
        let many = r#"{"question": "a", "images": ["a", "b", "c"]}"#;
        assert_eq!(wrong(many), "3 pictures, but --max-images is 2");
        let climbing = r#"{"question": "a", "images": ["../nowhere/a.png"]}"#;
        assert_eq!(wrong(climbing), "picture \"../nowhere/a.png\" lies outside of --data-root");
        let role = r#"{"messages": [{"role": "tool", "content": "a"}]}"#;
        assert!(wrong(role).starts_with("messages[0].role is \"tool\""));
        assert_eq!(wrong(r#"{"messages": [{"role": "user"}]}"#), "messages[0].content is missing");
    }
}
