//! Formats with one record per line: what they share.

use serde_json::{Map, Value};

use super::super::error::{DataError, Place, Why, shown};
use super::super::sample::{Kind, Picture, Sample};
use super::files::Root;
use super::records::Records;
use super::{Format, Reader, Spec, llava, messages, sharegpt4o, text};

/// A file of records in one of the line formats.
#[derive(Debug)]
pub(super) struct Rows {
    records: Records,
    format: Format,
    root: Root,
    /// Lines of text, not JSON.
    plain: bool,
    promised: Option<Kind>,
}

impl Rows {
    pub fn open(format: Format, spec: &Spec) -> Result<Self, DataError> {
        let json =
            |e: &std::ffi::OsStr| e.eq_ignore_ascii_case("json") || e.eq_ignore_ascii_case("jsonl");
        let plain = format == Format::Text && !spec.path.extension().is_some_and(json);
        let records = Records::open(&spec.path, plain)?;
        let root = Root::of(&spec.path, spec.root.as_deref());
        Ok(Self { records, format, root, plain, promised: spec.kind })
    }
}

impl Reader for Rows {
    fn chunks(&self) -> Vec<u64> {
        vec![self.records.len()]
    }

    fn sample(&self, index: u64) -> Result<Sample, Why> {
        if self.plain {
            return self.records.text(index).map(Sample::plain);
        }
        let fields = self.records.object(index)?;
        match self.format {
            Format::Llava => llava::sample(&fields, &self.root),
            Format::ShareGpt4o => sharegpt4o::sample(&fields, &self.root),
            Format::Text => text::sample(&fields),
            _ => messages::sample(&fields, &self.root),
        }
    }

    fn place(&self, index: u64) -> Place {
        self.records.place(index)
    }

    fn fingerprint(&self) -> [u8; 32] {
        self.records.fingerprint()
    }

    fn kind(&self) -> Option<Kind> {
        if self.format == Format::Text { Some(Kind::Text) } else { self.promised }
    }
}

/// A field, unless it is absent or null.
pub(super) fn field<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields.get(name).filter(|value| !value.is_null())
}

/// A field that must be a text.
pub(super) fn text_field<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<&'a str, Why> {
    match field(fields, name) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => {
            Err(Why::Record(format!("{name}: {} is no text", shown(&other.to_string()))))
        }
        None => Err(Why::Record(format!("no field \"{name}\""))),
    }
}

/// Pictures of a field that is a path, an object with one, or a list of either; none if absent.
pub(super) fn pictures(
    fields: &Map<String, Value>,
    name: &str,
    root: &Root,
) -> Result<Vec<Picture>, Why> {
    match field(fields, name) {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(|one| picture(one, name, root)).collect(),
        Some(one) => Ok(vec![picture(one, name, root)?]),
    }
}

pub(super) fn picture(value: &Value, name: &str, root: &Root) -> Result<Picture, Why> {
    let path = value.as_str().or_else(|| value.get("path")?.as_str());
    match path {
        Some(path) => root.resolve(path).map(Picture::File),
        None => {
            let found = shown(&value.to_string());
            Err(Why::Record(format!("{name}: {found} is no path of a picture")))
        }
    }
}
