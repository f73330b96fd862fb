//! Parquet: a column with pictures (Hugging Face's `struct{bytes, path}`, or plain bytes) and one
//! with texts; or texts alone.
//!
//! A row group is decoded as a whole and kept while its samples are asked for, so an epoch goes
//! through the groups one by one and through each group in a mixed order. Pages, groups and rows
//! are bounded.

use std::collections::VecDeque;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parquet::basic::Type as Physical;
use parquet::column::reader::ColumnReader;
use parquet::data_type::{AsBytes, ByteArray};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::ReaderProperties;
use parquet::file::reader::RowGroupReader;
use parquet::file::serialized_reader::SerializedRowGroupReader;
use parquet::schema::types::SchemaDescriptor;
use sha2::{Digest, Sha256};

use super::super::error::{At, DataError, Place, Why, shown};
use super::super::sample::{Kind, Picture, Sample};
use super::files::parts;
use super::parquet_pages::Pages;
use super::{Reader, Spec};

/// Largest page, and largest row group after decoding.
const MAX_PAGE: u64 = 256 << 20;
const MAX_GROUP: u64 = 1 << 30;
/// Most rows of a group.
const MAX_ROWS: i64 = 1 << 24;
/// Rows read between two looks at the size.
const AT_ONCE: usize = 64;
/// Decoded groups that are kept: the one in use, and the next, which threads ahead are in.
const KEPT: usize = 2;

/// Names that columns have in public data sets, in order of preference.
const PICTURES: [&str; 6] = ["image", "jpg", "png", "webp", "img", "image_bytes"];
const TEXTS: [&str; 8] =
    ["text", "caption", "captions", "prompt", "txt", "re_caption", "recaption", "content"];

/// A row group of a file.
#[derive(Clone, Copy, Debug)]
struct Group {
    table: usize,
    number: usize,
    /// Rows of all groups before, and of its file's groups before.
    before: u64,
    before_in_file: u64,
    rows: u64,
}

/// A file, and the leaf columns that matter.
#[derive(Debug)]
struct Table {
    path: Arc<Path>,
    /// Bytes of a page.
    limit: u64,
    metadata: ParquetMetaData,
    picture: Option<usize>,
    text: usize,
}

/// The columns of a decoded row group.
#[derive(Debug)]
struct Decoded {
    pictures: Vec<Option<ByteArray>>,
    texts: Vec<Option<ByteArray>>,
}

/// By number of the group; a group that cannot be read is remembered with the reason.
type Kept = VecDeque<(usize, Arc<Result<Decoded, String>>)>;

/// Parquet tables.
#[derive(Debug)]
pub struct Parquet {
    tables: Vec<Table>,
    groups: Vec<Group>,
    kept: Mutex<Kept>,
    kind: Kind,
    question: String,
    fingerprint: [u8; 32],
}

impl Parquet {
    /// Reads the footers of all tables.
    ///
    /// # Errors
    /// [`DataError::File`] for a table without the columns or with a damaged footer.
    pub fn open(spec: &Spec) -> Result<Self, DataError> {
        let (mut tables, mut groups, mut before) = (Vec::new(), Vec::new(), 0);
        let mut hash = Sha256::new();
        for path in parts(&spec.path, "parquet")? {
            let table = Table::open(&path, spec)?;
            let mut before_in_file = 0;
            for (number, group) in table.metadata.row_groups().iter().enumerate() {
                let rows = group.num_rows().max(0) as u64;
                let table = tables.len();
                groups.push(Group { table, number, before, before_in_file, rows });
                before += rows;
                before_in_file += rows;
                hash.update(group.num_rows().to_le_bytes());
                hash.update(group.compressed_size().to_le_bytes());
                hash.update(group.total_byte_size().to_le_bytes());
            }
            hash.update(path.to_string_lossy().as_bytes());
            tables.push(table);
        }
        groups.retain(|group| group.rows > 0);
        if groups.is_empty() {
            return Err(DataError::Empty { path: spec.path.clone(), found: "no rows" });
        }
        let pictures = tables.iter().any(|table| table.picture.is_some());
        let kind = if pictures { spec.caption_kind() } else { Kind::Text };
        Ok(Self {
            tables,
            groups,
            kept: Mutex::default(),
            kind,
            question: spec.question().to_owned(),
            fingerprint: hash.finalize().into(),
        })
    }

    fn find(&self, index: u64) -> (usize, usize) {
        let group = self.groups.partition_point(|group| group.before <= index) - 1;
        (group, (index - self.groups[group].before) as usize)
    }

    fn decoded(&self, number: usize) -> Arc<Result<Decoded, String>> {
        // Others wait for the same group rather than decode it a second time.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, decoded)) = kept.iter().find(|(of, _)| *of == number) {
            return Arc::clone(decoded);
        }
        // Room first: two groups at a time are in memory, not three.
        kept.truncate(KEPT - 1);
        let group = &self.groups[number];
        let table = &self.tables[group.table];
        // The library is not free of panics on broken files.
        let decoded = catch_unwind(AssertUnwindSafe(|| table.decode(group.number, self.kind)))
            .unwrap_or_else(|_| Err("the row group is damaged".to_owned()));
        let decoded = Arc::new(decoded);
        kept.push_front((number, Arc::clone(&decoded)));
        decoded
    }
}

impl Table {
    fn open(path: &Arc<Path>, spec: &Spec) -> Result<Self, DataError> {
        let io = |source| DataError::Io { path: path.to_path_buf(), action: "open", source };
        let wrong = |problem| DataError::File { path: path.to_path_buf(), problem };
        let file = File::open(path).map_err(io)?;
        let read = || ParquetMetaDataReader::new().parse_and_finish(&file);
        let metadata = catch_unwind(AssertUnwindSafe(read))
            .unwrap_or_else(|_| Err(ParquetError::General("damaged".to_owned())))
            .map_err(|error| wrong(format!("no parquet table: {}", cause(&error))))?;
        if let Some(group) = metadata.row_groups().iter().find(|g| g.num_rows() > MAX_ROWS) {
            let rows = group.num_rows();
            return Err(wrong(format!("a row group of {rows} rows, the limit is {MAX_ROWS}")));
        }
        let schema = metadata.file_metadata().schema_descr();
        let picture = match (&spec.image_column, spec.kind) {
            (Some(name), _) => Some(column(schema, name).map_err(wrong)?),
            (None, Some(Kind::Text)) => None,
            (None, _) => PICTURES.iter().find_map(|name| column(schema, name).ok()),
        };
        let text = match &spec.text_column {
            Some(name) => column(schema, name).map_err(wrong)?,
            None => TEXTS.iter().find_map(|name| column(schema, name).ok()).ok_or_else(|| {
                wrong(format!("no column with texts (columns: {})", columns(schema)))
            })?,
        };
        if picture.is_none() && spec.kind.is_some_and(|kind| kind != Kind::Text) {
            let problem = format!("no column with pictures (columns: {})", columns(schema));
            return Err(wrong(problem));
        }
        let path = Arc::clone(path);
        Ok(Self { path, limit: MAX_PAGE, metadata, picture, text })
    }

    fn decode(&self, group: usize, kind: Kind) -> Result<Decoded, String> {
        let metadata = self.metadata.row_group(group);
        let properties = Arc::new(ReaderProperties::builder().build());
        // Opened anew: with thousands of tables not all files could stay open.
        let pages = File::open(&self.path).and_then(|file| Pages::new(file, self.limit));
        let pages = Arc::new(pages.map_err(|error| format!("cannot be read any more: {error}"))?);
        let pages_of = self.metadata.page_index_for_row_group(group);
        let reader = SerializedRowGroupReader::new(pages, metadata, pages_of, properties)
            .map_err(|error| cause(&error))?;
        let rows = metadata.num_rows() as usize;
        let mut room = MAX_GROUP;
        let texts = read(&reader, self.text, rows, &mut room)?;
        let pictures = match self.picture {
            Some(picture) if kind != Kind::Text => read(&reader, picture, rows, &mut room)?,
            _ => Vec::new(),
        };
        Ok(Decoded { pictures, texts })
    }
}

/// The library's words in short.
fn cause(error: &ParquetError) -> String {
    shown(error.to_string().trim_start_matches("Parquet error: "))
}

/// The leaf of a column: itself, or its part `bytes`.
fn column(schema: &SchemaDescriptor, name: &str) -> Result<usize, String> {
    let found = (0..schema.num_columns()).find(|index| {
        let path = schema.column(*index).path().parts().join(".");
        path == name || path == format!("{name}.bytes")
    });
    let Some(index) = found else {
        return Err(format!("no column {} (columns: {})", shown(name), columns(schema)));
    };
    let column = schema.column(index);
    if column.physical_type() != Physical::BYTE_ARRAY || column.max_rep_level() > 0 {
        return Err(format!("the column {} holds neither texts nor bytes", shown(name)));
    }
    Ok(index)
}

fn columns(schema: &SchemaDescriptor) -> String {
    let mut names: Vec<String> =
        schema.columns().iter().take(12).map(|c| shown(&c.path().parts().join("."))).collect();
    if schema.num_columns() > names.len() {
        names.push("…".to_owned());
    }
    names.join(", ")
}

/// A column of a row group; values above the room that is left are an error.
fn read(
    reader: &impl RowGroupReader,
    column: usize,
    rows: usize,
    room: &mut u64,
) -> Result<Vec<Option<ByteArray>>, String> {
    let most = reader.metadata().column(column).column_descr().max_def_level();
    let ColumnReader::ByteArrayColumnReader(mut reader) =
        reader.get_column_reader(column).map_err(|error| cause(&error))?
    else {
        return Err("the column holds no bytes".to_owned());
    };
    let mut all = Vec::new();
    while all.len() < rows {
        let (mut levels, mut values) = (Vec::new(), Vec::new());
        let count = AT_ONCE.min(rows - all.len());
        let (records, _, _) = reader
            .read_records(count, Some(&mut levels), None, &mut values)
            .map_err(|error| cause(&error))?;
        if records == 0 {
            return Err(format!("the row group has {} rows, {rows} are announced", all.len()));
        }
        let bytes: u64 = values.iter().map(|value: &ByteArray| value.len() as u64).sum();
        *room = room.checked_sub(bytes).ok_or_else(|| {
            format!("the row group holds more than {} MiB: write smaller ones", MAX_GROUP >> 20)
        })?;
        let mut values = values.into_iter();
        // Without optional parts there are no levels, and no row is null.
        let present = |row: usize| levels.get(row).is_none_or(|level| *level == most);
        all.extend((0..records).map(|row| if present(row) { values.next() } else { None }));
    }
    Ok(all)
}

impl Reader for Parquet {
    fn chunks(&self) -> Vec<u64> {
        self.groups.iter().map(|group| group.rows).collect()
    }

    fn sample(&self, index: u64) -> Result<Sample, Why> {
        let (group, row) = self.find(index);
        let decoded = self.decoded(group);
        let decoded = (*decoded).as_ref().map_err(|problem| {
            let group = self.groups[group].number + 1;
            Why::Record(format!("row group {group}: {problem}"))
        })?;
        let text = decoded.texts.get(row).and_then(Option::as_ref).ok_or(Why::Empty("the text"))?;
        let text = std::str::from_utf8(text.as_bytes())
            .map_err(|_| Why::Record("the text is not UTF-8".to_owned()))?
            .trim();
        if text.is_empty() {
            return Err(Why::Empty("the text"));
        }
        if self.kind == Kind::Text {
            return Ok(Sample::plain(text.to_owned()));
        }
        let picture = decoded.pictures.get(row).and_then(Option::as_ref);
        let Some(bytes) = picture.filter(|bytes| !bytes.is_empty()) else {
            return Err(Why::Record("no picture, or only the path of one".to_owned()));
        };
        // A copy: the page that holds it would stay in memory as long as the picture.
        let picture = Picture::Bytes(Bytes::copy_from_slice(bytes.as_bytes()));
        Ok(Sample::captioned(self.kind, &self.question, text, picture))
    }

    fn place(&self, index: u64) -> Place {
        let (group, row) = self.find(index);
        let group = &self.groups[group];
        let row = group.before_in_file + row as u64 + 1;
        Place { file: Arc::clone(&self.tables[group.table].path), at: At::Row(row) }
    }

    fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    fn kind(&self) -> Option<Kind> {
        Some(self.kind)
    }
}

#[cfg(test)]
mod tests {
    use parquet::basic::Compression;
    use parquet::data_type::ByteArrayType;
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;

    /// One text of a million blanks: a few bytes in the file.
    fn bomb(path: &Path) {
        let schema = Arc::new(parse_message_type("message d { required binary text; }").unwrap());
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_dictionary_enabled(false)
            .build();
        let file = File::create(path).unwrap();
        let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let text = ByteArray::from([vec![b' '; 1_000_000], b"x".to_vec()].concat());
        column.typed::<ByteArrayType>().write_batch(&[text], None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
    }

    #[test]
    fn a_page_above_the_limit_is_refused_before_it_is_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.parquet");
        bomb(&path);
        let mut source = Parquet::open(&Spec::of(&path)).unwrap();
        assert_eq!(source.sample(0).unwrap(), Sample::plain("x".to_owned()));
        source.kept = Mutex::default();
        source.tables[0].limit = 900_000;
        let error = source.sample(0).unwrap_err().to_string();
        assert!(error.starts_with("row group 1: a page of 1000"), "{error}");
        assert!(error.ends_with(" bytes, the limit is 900000"), "{error}");
    }
}
