#![allow(clippy::unwrap_used)]

use std::fs;

use super::*;

fn row(step: u64) -> Row {
    Row {
        step,
        loss: Some(2.5),
        rate: 1e-3,
        tokens: 4096,
        seconds: step as f64 * 10.0,
        ..Row::default()
    }
}

fn steps(path: &Path) -> Vec<u64> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str::<Row>(line).unwrap().step).collect()
}

fn file_of(steps: std::ops::RangeInclusive<u64>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    let mut metrics = Metrics::open(&path, 0).unwrap();
    steps.for_each(|step| metrics.log(&row(step)).unwrap());
    (folder, path)
}

#[test]
fn rows_are_lines_that_read_back() {
    let (_folder, path) = file_of(1..=3);
    assert_eq!(steps(&path), [1, 2, 3]);
    let text = fs::read_to_string(&path).unwrap();
    let first: Row = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(first, row(1));
    assert!(!text.contains("skipped"), "absent where nothing was left out");
}

#[test]
fn what_is_no_number_is_null() {
    let (_folder, path) = file_of(1..=1);
    let mut metrics = Metrics::open(&path, 1).unwrap();
    let skipped = Some("the loss is not a number".to_owned());
    metrics.log(&Row { loss: Some(f64::NAN), skipped, ..row(2) }).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let read: Row = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
    assert_eq!(read.loss, None);
    assert_eq!(read.skipped.as_deref(), Some("the loss is not a number"));
}

/// However many bytes of the last line arrived.
#[test]
fn half_a_line_is_cut() {
    let (_folder, path) = file_of(1..=3);
    let whole = fs::read(&path).unwrap();
    let second = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let third = second + whole[second..].iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for cut in third..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let mut metrics = Metrics::open(&path, 3).unwrap();
        assert_eq!(steps(&path), [1, 2]);
        assert_eq!(metrics.seconds_before(), 20.0);
        metrics.log(&row(3)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole, "cut to {cut}");
    }
}

#[test]
fn steps_that_come_again_are_cut() {
    for resumed in 0..=6 {
        let (_folder, path) = file_of(1..=5);
        let mut metrics = Metrics::open(&path, resumed).unwrap();
        let kept = resumed.min(5);
        assert_eq!(steps(&path), (1..=kept).collect::<Vec<_>>());
        assert_eq!(metrics.seconds_before(), kept as f64 * 10.0);
        metrics.log(&row(resumed + 1)).unwrap();
        assert_eq!(steps(&path).last(), Some(&(resumed + 1)));
    }
}

#[test]
fn a_line_of_something_else_is_named_and_stays() {
    let (_folder, path) = file_of(1..=3);
    let mut text = fs::read_to_string(&path).unwrap();
    text.insert_str(text.find('\n').unwrap() + 1, "hello\n");
    fs::write(&path, &text).unwrap();
    let error = Metrics::open(&path, 3).unwrap_err();
    assert!(error.to_string().contains("line 2: no line of metrics"), "{error}");
    assert_eq!(error.kind(), ErrorKind::BadData);
    assert!(error.hint().is_some());
    assert_eq!(fs::read_to_string(&path).unwrap(), text, "nothing was cut");

    fs::write(&path, "x".repeat(MAX_LINE + 1)).unwrap();
    let error = Metrics::open(&path, 3).unwrap_err().to_string();
    assert!(error.contains("line 1"), "{error}");
}

/// RFC 3720, appendix B.4.
#[test]
fn checksums_by_the_book() {
    assert_eq!(events::crc32c(b"123456789"), 0xE306_9283);
    assert_eq!(events::crc32c(&[0; 32]), 0x8A91_36AA);
    assert_eq!(events::crc32c(&[0xFF; 32]), 0x62A8_AB43);
    assert_eq!(events::masked(0), 0xA282_EAD8);
}

/// Step, values by name, and whether it is the file's first record.
type Record = (u64, Vec<(String, f32)>, bool);

/// What a reader finds in the bytes: step and named numbers of each event.
fn parse(mut bytes: &[u8]) -> Vec<Record> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let sum = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(sum(8), events::masked(events::crc32c(&bytes[..8])));
        let data = &bytes[12..12 + length];
        assert_eq!(sum(12 + length), events::masked(events::crc32c(data)));
        let (mut step, mut numbers, mut starts) = (0, Vec::new(), false);
        for (number, value) in fields(data) {
            match (number, value) {
                (2, Value::Number(value)) => step = value,
                (5, Value::Bytes(summary)) => numbers.extend(fields(summary).map(scalar)),
                (7, Value::Bytes(session)) => starts = session == [8, 1],
                (3, Value::Bytes(version)) => assert_eq!(version, b"brain.Event:2"),
                (1, Value::Bytes(_)) => {}
                (number, _) => panic!("field {number}"),
            }
        }
        found.push((step, numbers, starts));
        bytes = &bytes[16 + length..];
    }
    found
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn scalar((number, value): (u8, Value)) -> (String, f32) {
    let (1, Value::Bytes(entry)) = (number, value) else { panic!("field {number}") };
    let (mut tag, mut value) = (String::new(), f32::NAN);
    for (number, part) in fields(entry) {
        let Value::Bytes(part) = part else { panic!("field {number}") };
        match number {
            1 => tag = String::from_utf8(part.to_vec()).unwrap(),
            2 => value = f32::from_le_bytes(part.try_into().unwrap()),
            _ => panic!("field {number}"),
        }
    }
    (tag, value)
}

/// Fields of a message: number, and number or bytes.
fn fields(mut data: &[u8]) -> impl Iterator<Item = (u8, Value<'_>)> {
    fn varint(data: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = data[0];
            *data = &data[1..];
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    std::iter::from_fn(move || {
        let (&key, rest) = data.split_first()?;
        data = rest;
        let length = match key & 7 {
            0 => return Some((key >> 3, Value::Number(varint(&mut data)))),
            1 => 8,
            2 => varint(&mut data) as usize,
            5 => 4,
            wire => panic!("wire type {wire}"),
        };
        let (value, rest) = data.split_at(length);
        data = rest;
        Some((key >> 3, Value::Bytes(value)))
    })
}

#[test]
fn tensorboard_files_hold_the_same_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let (path, boards) = (folder.path().join("metrics.jsonl"), folder.path().join("boards"));
    let mut metrics = Metrics::open(&path, 299).unwrap().with_events(&boards, 299).unwrap();
    let full = Row {
        loss_text: Some(1.5),
        loss_image: Some(9.0),
        grad_norm: Some(0.25),
        memory: Some(1 << 30),
        skipped: Some("why".into()),
        ..row(301)
    };
    metrics.log(&row(300)).unwrap();
    metrics.log(&full).unwrap();
    // A second process in the same second.
    Metrics::open(&path, 301).unwrap().with_events(&boards, 301).unwrap();

    let mut files: Vec<_> =
        fs::read_dir(&boards).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 2);
    let name = files[0].file_name().unwrap().to_string_lossy().into_owned();
    assert!(name.starts_with("events.out.tfevents."), "{name}");
    let events = parse(&fs::read(&files[0]).unwrap());
    let [version, start, first, second] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((version.0, version.2), (0, false));
    assert_eq!((start.0, start.2), (300, true), "later steps of other files are dropped");
    let named = |list: &[(&str, f32)]| -> Vec<(String, f32)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    };
    let short =
        [("rate", 1e-3), ("supervised", 0.0), ("tokens", 4096.0), ("tokens_per_second", 0.0)];
    let mut expected = named(&short);
    expected.extend(named(&[("loss", 2.5)]));
    assert_eq!((first.0, &first.1), (300, &expected));
    expected.extend(named(&[("loss/text", 1.5), ("loss/image", 9.0), ("grad_norm", 0.25)]));
    expected.extend(named(&[("memory", 1_073_741_824.0), ("skipped", 1.0)]));
    assert_eq!((second.0, &second.1), (301, &expected));
    assert_eq!(parse(&fs::read(&files[1]).unwrap())[1].0, 302);
}

#[test]
fn terms_add_up_and_are_told_by_name() {
    let mut terms = Terms::default();
    terms.add("a", 0.25);
    terms.add("b", f64::NAN);
    terms.add("a", 0.5);
    assert_eq!(terms.get("a"), Some(0.75));
    assert_eq!(terms.get("c"), None);
    let row = Row { terms: terms.named(), ..row(1) };
    assert_eq!(row.terms, BTreeMap::from([("a".to_owned(), 0.75)]));
    assert!(scalars(&row).contains(&("a", 0.75)));
    let line = serde_json::to_string(&row).unwrap();
    assert_eq!(serde_json::from_str::<Row>(&line).unwrap(), row);
    assert!(!serde_json::to_string(&Row::default()).unwrap().contains("terms"));
}
