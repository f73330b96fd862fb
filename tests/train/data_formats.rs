//! Every format: what becomes of its files.

use std::path::Path;

use janus_model::processor::Role;
use janus_train::data::formats::{detect, open};
use janus_train::data::sample::{Content, Picture, Piece, Sample};
use janus_train::data::{Format, Kind, Spec};

use crate::data_common::{png, save, write};

/// All samples of a source; bad ones as their messages.
fn read(spec: &Spec) -> Vec<Result<Sample, String>> {
    let reader = open(spec).unwrap();
    let count: u64 = reader.chunks().iter().sum();
    (0..count)
        .map(|i| reader.sample(i).map_err(|why| format!("{}: {why}", reader.place(i))))
        .collect()
}

/// Turns as `role: text`, `#n` for pictures.
fn said(sample: &Sample) -> String {
    let Content::Turns { system, turns } = &sample.content else {
        let Content::Plain(text) = &sample.content else { unreachable!() };
        return format!("plain: {text}");
    };
    let piece = |piece: &Piece| match piece {
        Piece::Text(text) => text.clone(),
        Piece::Picture(number) => format!("#{number}"),
    };
    let turn = |turn: &janus_train::data::sample::Turn| {
        let role = if turn.role == Role::User { "user" } else { "assistant" };
        format!("{role}: {}", turn.pieces.iter().map(piece).collect::<String>())
    };
    let system = system.iter().map(|system| format!("system: {system}"));
    system.chain(turns.iter().map(turn)).collect::<Vec<_>>().join(" | ")
}

fn all_said(spec: &Spec) -> Vec<String> {
    read(spec).into_iter().map(|sample| said(&sample.unwrap())).collect()
}

fn files(sample: &Sample) -> Vec<String> {
    let name = |picture: &Picture| match picture {
        Picture::File(path) => path.file_name().unwrap().to_string_lossy().into_owned(),
        Picture::Bytes(bytes) => format!("{} bytes", bytes.len()),
    };
    sample.pictures.iter().map(name).collect()
}

#[test]
fn messages() {
    let folder = tempfile::tempdir().unwrap();
    let lines = [
        r#"{"messages":[{"role":"system","content":"S"},{"role":"user","content":"<image>What?"},{"role":"assistant","content":"A cat."}],"images":["a.png"]}"#,
        r#"{"messages":[{"role":"user","content":"a cat"},{"role":"assistant","content":"<image>"}],"images":["b.png"]}"#,
        r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"c.png"}},{"type":"text","text":"bluer"}]},{"role":"assistant","content":[{"type":"image","image":"d.png"}]}]}"#,
        r#"{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"ho","loss":false}],"images":[],"id":7}"#,
    ];
    let path = write(folder.path(), "d.jsonl", lines.join("\n"));
    assert_eq!(detect(&path).unwrap(), Format::Messages);
    let spec = Spec::of(&path);
    let expected = [
        "system: S | user: #0What? | assistant: A cat.",
        "user: a cat | assistant: #0",
        "user: #0bluer | assistant: #1",
        "user: hi | assistant: ho",
    ];
    assert_eq!(all_said(&spec), expected);
    let samples = read(&spec);
    let kinds: Vec<_> = samples.iter().map(|sample| sample.as_ref().unwrap().kind()).collect();
    assert_eq!(kinds, [Kind::Understand, Kind::Draw, Kind::Draw, Kind::Text]);
    assert_eq!(files(samples[2].as_ref().unwrap()), ["c.png", "d.png"]);
    let Content::Turns { turns, .. } = &samples[3].as_ref().unwrap().content else { panic!() };
    assert!(!turns[1].learnt);
}

#[test]
fn llava_as_a_list_and_as_lines() {
    let folder = tempfile::tempdir().unwrap();
    let rows = [
        r#"{"id":"1","image":"a.jpg","conversations":[{"from":"human","value":"<image>\nWhat?"},{"from":"gpt","value":"A cat."}]}"#,
        r#"{"id":"2","image":["a.jpg","b.jpg"],"conversations":[{"from":"human","value":"<image><image>Which?"},{"from":"gpt","value":"Both."}]}"#,
        r#"{"id":"3","conversations":[{"from":"human","value":"Hi"},{"from":"gpt","value":"Ho"}]}"#,
    ];
    let list = write(folder.path(), "d.json", format!("[\n{}\n]\n", rows.join(",\n")));
    let lines = write(folder.path(), "d.jsonl", rows.join("\r\n"));
    assert_eq!(detect(&list).unwrap(), Format::Llava);
    let expected = [
        "user: #0\nWhat? | assistant: A cat.",
        "user: #0#1Which? | assistant: Both.",
        "user: Hi | assistant: Ho",
    ];
    assert_eq!(all_said(&Spec::of(list)), expected);
    assert_eq!(all_said(&Spec::of(lines)), expected);
}

#[test]
fn sharegpt_4o_image() {
    let folder = tempfile::tempdir().unwrap();
    let list = r#"[{"input_prompt":"a cat","output_image":"a.png"},
        {"input_prompt":"bluer","input_image":["b.png"],"output_image":"c.png"}]"#;
    let path = write(folder.path(), "t2i.json", list);
    assert_eq!(detect(&path).unwrap(), Format::ShareGpt4o);
    let spec = Spec::of(path);
    assert_eq!(all_said(&spec), ["user: a cat | assistant: #0", "user: #0bluer | assistant: #1"]);
    assert_eq!(files(read(&spec)[1].as_ref().unwrap()), ["b.png", "c.png"]);
}

#[test]
fn text_as_lines_and_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let json = write(folder.path(), "d.jsonl", "{\"text\":\"One.\\nTwo.\"}\n{\"text\":\"x\"}\n");
    let plain = write(folder.path(), "d.txt", "One.\n\n{not json\n");
    assert_eq!(detect(&json).unwrap(), Format::Text);
    assert_eq!(all_said(&Spec::of(json)), ["plain: One.\nTwo.", "plain: x"]);
    assert_eq!(detect(&plain).unwrap(), Format::Text);
    assert_eq!(all_said(&Spec::of(plain)), ["plain: One.", "plain: {not json"]);
}

#[test]
fn sidecars_in_folders() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("b.png", "a dog"), ("sub/a.PNG", " \u{feff}a cat\n")] {
        write(folder.path(), name, png(1));
        write(
            folder.path(),
            Path::new(name).with_extension("txt").to_str().unwrap(),
            text.trim_start_matches(' '),
        );
    }
    write(folder.path(), "c.jpg", png(2));
    write(folder.path(), "notes.txt", "no picture");
    assert_eq!(detect(folder.path()).unwrap(), Format::Sidecar);
    let spec = Spec::of(folder.path());
    let found = read(&spec);
    assert_eq!(found.len(), 3);
    assert_eq!(said(found[0].as_ref().unwrap()), "user: a dog | assistant: #0");
    assert!(found[1].as_ref().unwrap_err().ends_with("c.jpg: no .txt or .caption file beside it"));
    assert_eq!(said(found[2].as_ref().unwrap()), "user: a cat | assistant: #0");
    let described = Spec { kind: Some(Kind::Understand), ..spec };
    let first = said(read(&described)[0].as_ref().unwrap());
    assert_eq!(first, "user: #0Describe the image in detail. | assistant: a dog");
}

#[test]
fn classes_with_and_without_names() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    for (class, number) in [("n01", 1), ("n01", 2), ("n_02", 3)] {
        write(&data, &format!("{class}/p{number}.jpeg"), png(number));
    }
    assert_eq!(detect(&data).unwrap(), Format::Classes);
    let spec = Spec::of(&data);
    let drawn = |name: &str| format!("user: {name} | assistant: #0");
    assert_eq!(all_said(&spec), [drawn("n01"), drawn("n01"), drawn("n 02")]);
    for (name, table) in [
        ("a.json", r#"{"n01":"tench, Tinca tinca","n_02":"goldfish"}"#),
        ("b.json", r#"{"0":["n01","tench"],"1":["n_02","goldfish"]}"#),
        ("c.txt", "n01 tench, Tinca tinca\nn_02 goldfish\n"),
    ] {
        let names = Some(write(folder.path(), name, table));
        let found = all_said(&Spec { names, ..spec.clone() });
        assert_eq!(found, [drawn("tench"), drawn("tench"), drawn("goldfish")], "{name}");
    }
    let names = Some(write(folder.path(), "d.txt", "n01 tench\n"));
    let error = open(&Spec { names, ..spec }).unwrap_err().to_string();
    assert!(error.ends_with("d.txt: no name for the class n_02"), "{error}");
}

/// Members of a tar shard, in order.
pub fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, contents) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *contents).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn webdataset_shards() {
    let folder = tempfile::tempdir().unwrap();
    let picture = png(1);
    let long = format!("{}/0003", "long".repeat(60));
    let (long_png, long_json) = (format!("{long}.webp"), format!("{long}.json"));
    let first = tar(&[
        ("0001.jpg", &picture),
        ("0001.txt", b" a cat \n"),
        ("./0002.json", br#"{"caption":"not this","x":1}"#),
        ("./0002.png", &picture),
        ("./0002.caption", b"a dog"),
    ]);
    let second = tar(&[(&long_png, &picture), (&long_json, br#"{"caption":"a fish"}"#)]);
    write(folder.path(), "d-00.tar", first);
    write(folder.path(), "d-01.tar", second);
    assert_eq!(detect(folder.path()).unwrap(), Format::WebDataset);
    let range = folder.path().join("d-{00..01}.tar");
    assert_eq!(detect(&range).unwrap(), Format::WebDataset);
    let drawn = |name: &str| format!("user: {name} | assistant: #0");
    let expected = [drawn("a cat"), drawn("a dog"), drawn("a fish")];
    for path in [folder.path(), &range] {
        let spec = Spec::of(path);
        assert_eq!(all_said(&spec), expected);
        assert_eq!(open(&spec).unwrap().chunks(), [2, 1]);
        assert_eq!(files(read(&spec)[2].as_ref().unwrap()), [format!("{} bytes", picture.len())]);
    }
    let texts = Spec { kind: Some(Kind::Text), ..Spec::of(folder.path()) };
    assert_eq!(all_said(&texts), ["plain: a cat", "plain: a dog", "plain: a fish"]);
}

/// A table as the Hub has them: `image struct{bytes, path}` and `text`, in groups of two rows.
pub fn table(path: &Path, rows: &[(Option<Vec<u8>>, Option<&str>)]) {
    use parquet::basic::{Compression, ZstdLevel};
    use parquet::data_type::{ByteArray, ByteArrayType};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use std::sync::Arc;

    let schema = "message d { optional group image { optional binary bytes; optional binary path (UTF8); } optional binary text (UTF8); required int32 n; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let zstd = Compression::ZSTD(ZstdLevel::try_new(1).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_compression(zstd).build());
    let file = std::fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, properties).unwrap();
    for rows in rows.chunks(2) {
        let mut group = writer.next_row_group().unwrap();
        let mut number = 0;
        while let Some(mut column) = group.next_column().unwrap() {
            let texts = |value: Option<&[u8]>| value.map(|v| ByteArray::from(v.to_vec()));
            let values: Vec<(Option<ByteArray>, i16)> = match number {
                0 => rows.iter().map(|(image, _)| (texts(image.as_deref()), 2)).collect(),
                1 => rows.iter().map(|_| (texts(Some(b"x.png")), 2)).collect(),
                _ => rows.iter().map(|(_, text)| (texts(text.map(str::as_bytes)), 1)).collect(),
            };
            if number < 3 {
                let levels: Vec<i16> = values
                    .iter()
                    .map(|(v, most)| if v.is_some() { *most } else { most - 1 })
                    .collect();
                let values: Vec<ByteArray> = values.into_iter().filter_map(|(v, _)| v).collect();
                column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
            } else {
                let numbers = vec![7; rows.len()];
                column
                    .typed::<parquet::data_type::Int32Type>()
                    .write_batch(&numbers, None, None)
                    .unwrap();
            }
            column.close().unwrap();
            number += 1;
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
}

#[test]
fn parquet_tables() {
    let folder = tempfile::tempdir().unwrap();
    let rows = [
        (Some(png(1)), Some("a cat")),
        (None, Some("no picture")),
        (Some(png(2)), None),
        (Some(png(3)), Some(" a dog ")),
        (Some(png(4)), Some("a fish")),
    ];
    table(&folder.path().join("train-0.parquet"), &rows[..3]);
    table(&folder.path().join("train-1.parquet"), &rows[3..]);
    assert_eq!(detect(folder.path()).unwrap(), Format::Parquet);
    let spec = Spec::of(folder.path());
    assert_eq!(open(&spec).unwrap().chunks(), [2, 1, 2]);
    let found = read(&spec);
    assert_eq!(said(found[0].as_ref().unwrap()), "user: a cat | assistant: #0");
    assert_eq!(found[0].as_ref().unwrap().pictures, [Picture::Bytes(png(1).into())]);
    let error =
        |index: usize| found[index].as_ref().unwrap_err().rsplit('/').next().unwrap().to_owned();
    assert_eq!(error(1), "train-0.parquet: row 2: no picture, or only the path of one");
    assert_eq!(error(2), "train-0.parquet: row 3: the text is empty");
    assert_eq!(said(found[3].as_ref().unwrap()), "user: a dog | assistant: #0");
    assert_eq!(found[4].as_ref().unwrap().pictures, [Picture::Bytes(png(4).into())]);
    let texts = Spec { kind: Some(Kind::Text), ..spec.clone() };
    assert_eq!(said(read(&texts)[0].as_ref().unwrap()), "plain: a cat");
    let named = Spec { text_column: Some("image.path".to_owned()), ..spec.clone() };
    assert_eq!(said(read(&named)[0].as_ref().unwrap()), "user: x.png | assistant: #0");
    let wrong = Spec { text_column: Some("n".to_owned()), ..spec.clone() };
    assert!(open(&wrong).unwrap_err().to_string().contains("neither texts nor bytes"));
    let wrong = Spec { image_column: Some("pic".to_owned()), ..spec };
    let error = open(&wrong).unwrap_err().to_string();
    assert!(
        error.ends_with("no column pic (columns: image.bytes, image.path, text, n)"),
        "{error}"
    );
}

#[test]
fn what_is_none_of_these_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "d.jsonl", "{\"foo\":1,\"bar\":2}\n");
    let error = detect(&path).unwrap_err().to_string();
    assert!(error.ends_with("d.jsonl: no known format (fields: bar, foo)"), "{error}");
    let path = write(folder.path(), "e.jsonl", "hello\n");
    assert!(detect(&path).unwrap_err().to_string().ends_with("no line of it is a JSON object"));
    assert!(detect(&folder.path().join("absent")).is_err());
    let empty = tempfile::tempdir().unwrap();
    assert!(
        detect(empty.path()).unwrap_err().to_string().contains("no pictures, .tar or .parquet")
    );
    save(empty.path(), 1);
    assert_eq!(detect(empty.path()).unwrap(), Format::Sidecar);
}
