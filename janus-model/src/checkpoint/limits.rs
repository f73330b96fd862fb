//! How much of a checkpoint file is believed before it is refused.
//!
//! Weight files come from strangers. Every length they declare is compared with one of these caps
//! *before* memory is set aside for it. Real files stay far below: the 7B index is 93 kB, its
//! pickle 140 kB.

/// Upper bounds for everything a checkpoint file declares about itself.
///
/// The defaults fit every Janus-Pro release with two orders of magnitude to spare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a safetensors header. The format itself allows 100 MB.
    pub header_bytes: u64,
    /// Tensors over all shards, and entries of a `.bin` archive.
    pub tensors: usize,
    /// UTF-8 bytes of a tensor name.
    pub name_bytes: usize,
    /// Dimensions of one tensor.
    pub rank: usize,
    /// Bytes of a JSON file (the shard index).
    pub json_bytes: u64,
    /// Shards an index may name.
    pub shards: usize,
    /// Bytes of `data.pkl`, the pickle inside a `.bin` archive.
    pub pickle_bytes: u64,
    /// Open marks, and containers inside containers, of a pickle.
    pub pickle_depth: usize,
    /// Instructions of a pickle.
    pub pickle_opcodes: u64,
    /// Values, containers and memo entries a pickle may hold at once: the bound on its memory.
    pub pickle_objects: usize,
    /// Bytes of the central directory of a `.bin` archive.
    pub zip_directory_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: u64 = 1 << 20;
        Self {
            header_bytes: 16 * MIB,
            tensors: 100_000,
            name_bytes: 512,
            rank: 8,
            json_bytes: 16 * MIB,
            shards: 1024,
            pickle_bytes: 100 * MIB,
            pickle_depth: 256,
            pickle_opcodes: 10_000_000,
            pickle_objects: 500_000,
            zip_directory_bytes: 16 * MIB,
        }
    }
}
