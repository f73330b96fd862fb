//! Writing safetensors: one file, or shards with an index, under any naming.
//!
//! The header is planned from names and shapes alone; then each tensor is drawn, converted a piece
//! at a time if asked, written and dropped, so the peak is one tensor. Nothing appears under its
//! final name before it is complete and on disk: files are written into a temporary folder,
//! flushed, and renamed, the index last. A full disk leaves the old checkpoint as it was.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use burn::tensor::DType;

use super::{
    error::CheckpointError,
    keys::{self, Naming},
    lazy::{self, LazyTensor},
    safetensors::dtype_name,
    shards::{Format, WeightFile},
};
use crate::packed::LINE;

/// Elements converted at a time: the buffer stays at 4 MiB.
const CHUNK: usize = 1 << 20;
/// Writes below this are gathered; larger ones go straight to the file.
const BUFFER: usize = 1 << 20;
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// How [`save`] names, converts and cuts.
#[derive(Debug, Clone)]
pub struct SaveOptions {
    /// Names in the file.
    pub naming: Naming,
    /// Element type of all float tensors; `None` keeps what each has.
    pub dtype: Option<DType>,
    /// Largest amount of tensor data in one file; a larger single tensor gets a file of its own.
    pub max_shard_bytes: u64,
    /// Text pairs in the header. `format: pt` is what `transformers` insists on.
    pub metadata: BTreeMap<String, String>,
}

impl Default for SaveOptions {
    fn default() -> Self {
        Self {
            naming: Naming::Original,
            dtype: None,
            max_shard_bytes: 5_000_000_000,
            metadata: BTreeMap::from([("format".to_owned(), "pt".to_owned())]),
        }
    }
}

/// A tensor to be written, and as what.
struct Item {
    tensor: LazyTensor,
    dtype: DType,
    bytes: u64,
}

/// Writes tensors with canonical names into `dir`, which is created if absent.
///
/// Names that the naming has no place for (see [`keys::drop_reason`]) are left out. In a folder
/// that exists, weight files of these names are replaced, and safetensors files of an earlier save
/// that would be found in their stead are removed; everything else stays. Order and content depend
/// on nothing but the arguments.
///
/// # Errors
/// [`CheckpointError::Unsavable`] for tensors that have no name or type in the file, errors of
/// drawing a tensor, I/O errors.
pub fn save(
    dir: impl AsRef<Path>,
    tensors: Vec<LazyTensor>,
    options: &SaveOptions,
) -> Result<Vec<WeightFile>, CheckpointError> {
    let dir = dir.as_ref();
    let shards = cut(plan(tensors, options)?, options.max_shard_bytes);
    let mut names: Vec<String> = match shards.len() {
        1 => vec![SINGLE.to_owned()],
        count => (1..=count).map(|i| format!("model-{i:05}-of-{count:05}.safetensors")).collect(),
    };
    let fresh = !dir.exists();
    let temporary = TemporaryFolder::create(dir, fresh)?;
    let mut files = Vec::new();
    for (name, items) in names.iter().zip(&shards) {
        let path = temporary.path.join(name);
        let bytes = write_file(&path, &dir.join(name), items, &options.metadata)?;
        files.push(WeightFile { name: name.clone(), bytes, format: Format::Safetensors });
    }
    let sharded = shards.len() > 1;
    if sharded {
        temporary.write(dir, INDEX, index(&names, &shards).as_bytes())?;
        names.push(INDEX.to_owned());
    }
    temporary.publish(dir, fresh, &names)?;
    if !fresh {
        remove_stale(dir, &names, sharded)
            .and_then(|()| sync_folder(dir))
            .map_err(|error| CheckpointError::io(dir, "write into", error))?;
    }
    Ok(files)
}

/// Writes tensors, as they are named and typed, into one file beside other `files`, all of which
/// appear under their names when they are complete.
pub(crate) fn save_beside(
    dir: &Path,
    tensors: (&str, Vec<LazyTensor>),
    files: &[(&str, &[u8])],
) -> Result<(), CheckpointError> {
    let item = |tensor: LazyTensor| {
        let (dtype, bytes) = (tensor.dtype, tensor.byte_len() as u64);
        Item { tensor, dtype, bytes }
    };
    let (name, tensors) = tensors;
    let items: Vec<Item> = tensors.into_iter().map(item).collect();
    let fresh = !dir.exists();
    let temporary = TemporaryFolder::create(dir, fresh)?;
    let metadata = SaveOptions::default().metadata;
    write_file(&temporary.path.join(name), &dir.join(name), &items, &metadata)?;
    let mut names = vec![name.to_owned()];
    for (name, bytes) in files {
        temporary.write(dir, name, bytes)?;
        names.push((*name).to_owned());
    }
    temporary.publish(dir, fresh, &names)
}

/// Names, types and order of what will be written.
fn plan(tensors: Vec<LazyTensor>, options: &SaveOptions) -> Result<Vec<Item>, CheckpointError> {
    let mut items = Vec::new();
    let mut seen = HashSet::new();
    for tensor in tensors {
        let name = tensor.name.clone();
        let unsavable = |problem| CheckpointError::Unsavable { tensor: name.clone(), problem };
        for tensor in keys::exported(tensor, options.naming).map_err(unsavable)? {
            let dtype = match options.dtype {
                Some(to) if lazy::is_float(tensor.dtype) => to,
                _ => tensor.dtype,
            };
            if dtype_name(dtype).is_none() || (dtype != tensor.dtype && !lazy::is_float(dtype)) {
                return Err(unsavable("its element type cannot be written to safetensors"));
            }
            let elements = lazy::elements(&tensor.shape.to_vec());
            if elements.and_then(|n| n.checked_mul(tensor.dtype.size())) != Some(tensor.byte_len())
            {
                return Err(unsavable("its length does not fit its shape"));
            }
            if !seen.insert(tensor.name.clone()) {
                return Err(unsavable("another tensor has the same name"));
            }
            let bytes = (tensor.byte_len() / tensor.dtype.size() * dtype.size()) as u64;
            items.push(Item { tensor, dtype, bytes });
        }
    }
    // Wide elements first keeps every tensor aligned; names make the order total.
    items.sort_by(|a, b| {
        b.alignment().cmp(&a.alignment()).then_with(|| a.tensor.name.cmp(&b.tensor.name))
    });
    Ok(items)
}

impl Item {
    /// What its place in the file should be a multiple of, and its length is: bytes in lines are
    /// used where they are mapped, a line at a time.
    fn alignment(&self) -> usize {
        match self.tensor.shape.to_vec()[..] {
            [_, LINE] if self.dtype == DType::U8 => LINE,
            _ => self.dtype.size(),
        }
    }
}

/// Fills files one after the other up to `limit` bytes of data.
fn cut(items: Vec<Item>, limit: u64) -> Vec<Vec<Item>> {
    let mut shards = vec![Vec::new()];
    let mut used = 0_u64;
    for item in items {
        if used > 0 && used.saturating_add(item.bytes) > limit {
            shards.push(Vec::new());
            used = 0;
        }
        used += item.bytes;
        if let Some(shard) = shards.last_mut() {
            shard.push(item);
        }
    }
    shards
}

/// Writes and flushes one file; returns its length. Errors name the final path.
fn write_file(
    path: &Path,
    shown: &Path,
    items: &[Item],
    metadata: &BTreeMap<String, String>,
) -> Result<u64, CheckpointError> {
    let io = |error| CheckpointError::io(shown, "write", error);
    let header = header(items, metadata);
    let file = File::create(path).map_err(io)?;
    let mut writer = BufWriter::with_capacity(BUFFER, file);
    writer.write_all(&(header.len() as u64).to_le_bytes()).map_err(io)?;
    writer.write_all(header.as_bytes()).map_err(io)?;
    for item in items {
        let bytes = lazy::draw(&item.tensor)?;
        write_data(&mut writer, &bytes, item).map_err(io)?;
    }
    let file = writer.into_inner().map_err(|error| io(error.into_error()))?;
    file.sync_all().map_err(io)?;
    Ok(8 + header.len() as u64 + items.iter().map(|item| item.bytes).sum::<u64>())
}

fn write_data(writer: &mut impl Write, bytes: &[u8], item: &Item) -> io::Result<()> {
    let (from, to) = (item.tensor.dtype, item.dtype);
    if from == to {
        return writer.write_all(bytes);
    }
    let mut converted = Vec::with_capacity(CHUNK.min(bytes.len() / from.size()) * to.size());
    for chunk in bytes.chunks(CHUNK * from.size()) {
        converted.clear();
        lazy::convert(chunk, from, to, &mut converted);
        writer.write_all(&converted)?;
    }
    Ok(())
}

/// The JSON header, padded with spaces so that the data starts at a multiple of eight bytes, or of
/// what the first tensor asks for, which asks for most.
fn header(items: &[Item], metadata: &BTreeMap<String, String>) -> String {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let mut entries = Vec::with_capacity(items.len() + 1);
    if !metadata.is_empty() {
        let pairs: Vec<_> = metadata
            .iter()
            .map(|(key, value)| format!("{}:{}", quote(key), quote(value)))
            .collect();
        entries.push(format!("\"__metadata__\":{{{}}}", pairs.join(",")));
    }
    let mut start = 0;
    for Item { tensor, dtype, bytes } in items {
        let (name, end) = (quote(&tensor.name), start + bytes);
        let dtype = dtype_name(*dtype).unwrap_or_default();
        let shape: Vec<_> = tensor.shape.to_vec().iter().map(usize::to_string).collect();
        let shape = shape.join(",");
        entries.push(format!(
            "{name}:{{\"dtype\":\"{dtype}\",\"shape\":[{shape}],\"data_offsets\":[{start},{end}]}}"
        ));
        start = end;
    }
    let mut header = format!("{{{}}}", entries.join(","));
    let start = items.first().map_or(8, |item| item.alignment().max(8));
    let length = (8 + header.len()).next_multiple_of(start) - 8;
    header.extend(std::iter::repeat_n(' ', length - header.len()));
    header
}

/// The index in the form of Hugging Face.
fn index(names: &[String], shards: &[Vec<Item>]) -> String {
    let total: u64 = shards.iter().flatten().map(|item| item.bytes).sum();
    let mut map = BTreeMap::new();
    for (name, items) in names.iter().zip(shards) {
        map.extend(items.iter().map(|item| (item.tensor.name.as_str(), name.as_str())));
    }
    let index = serde_json::json!({ "metadata": { "total_size": total }, "weight_map": map });
    format!("{index:#}\n")
}

/// A folder for unfinished files, removed with all its content unless published.
struct TemporaryFolder {
    path: PathBuf,
}

impl TemporaryFolder {
    /// Beside a folder that does not exist yet, or inside one that does (which may be a mount
    /// point, and renaming works only within one file system).
    fn create(dir: &Path, fresh: bool) -> Result<Self, CheckpointError> {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let name = format!(".{name}.tmp-{}", std::process::id());
        let path = if fresh { dir.with_file_name(name) } else { dir.join(name) };
        let create = || -> io::Result<()> {
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                fs::create_dir_all(parent)?;
            }
            fs::create_dir(&path)
        };
        create().map_err(|error| CheckpointError::io(dir, "create", error))?;
        Ok(Self { path })
    }

    /// Writes and flushes a small file. Errors name the final path.
    fn write(&self, dir: &Path, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        let put = || -> io::Result<()> {
            let mut file = File::create(self.path.join(name))?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        put().map_err(|error| CheckpointError::io(&dir.join(name), "write", error))
    }

    /// Moves the finished files to where readers look for them.
    fn publish(self, dir: &Path, fresh: bool, names: &[String]) -> Result<(), CheckpointError> {
        let move_all = || -> io::Result<()> {
            sync_folder(&self.path)?;
            if fresh {
                fs::rename(&self.path, dir)?;
                return sync_folder(dir.parent().unwrap_or(Path::new(".")));
            }
            for name in names {
                fs::rename(self.path.join(name), dir.join(name))?;
            }
            sync_folder(dir)
        };
        move_all().map_err(|error| CheckpointError::io(dir, "write into", error))
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // After a successful rename there is nothing left, and after a failure the cause matters
        // more than a leftover folder.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes an earlier save that would shadow or outlive the new one.
fn remove_stale(dir: &Path, names: &[String], sharded: bool) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let file_name = entry.file_name();
        let name = file_name.to_string_lossy();
        let old_layout = if sharded { name == SINGLE } else { name == INDEX };
        if old_layout || (is_shard(&name) && !names.iter().any(|new| *new == name)) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// `model-00001-of-00003.safetensors`, as written above.
fn is_shard(name: &str) -> bool {
    let number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    name.strip_prefix("model-")
        .and_then(|rest| rest.strip_suffix(".safetensors"))
        .and_then(|rest| rest.split_once("-of-"))
        .is_some_and(|(i, count)| number(i) && number(count))
}

/// Makes renames durable. Windows cannot open folders and does not need this.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        File::open(path)?.sync_all()?;
    }
    Ok(())
}
