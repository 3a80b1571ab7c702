//! Content identifiers as kubo computes them, so that both ends of an upload can check each other's.
//!
//! Not a DAG library: it knows files added with `cid-version=1&raw-leaves=true&chunker=size-2096896` and the flat
//! directories of roll-ups, nothing else. Called by the capture agent (before an upload), the storage agent (while the
//! bytes pass), the recorder (roll-ups) and the gateway (before a byte leaves).

use cid::multihash::Multihash;
use sha2::{Digest, Sha256};

pub use cid::Cid;

/// Largest block, and with it the chunk size: 2 MiB less the room kubo leaves for framing. A byte more and a file has a
/// root of its own; exactly 2 MiB is more.
pub const CHUNK: usize = 2_096_896;
/// Largest file the storage agents take.
pub const MAX_FILE: u64 = 64 * 1024 * 1024;
/// Links per node of kubo's balanced layout.
const MAX_LINKS: usize = 174;
/// Entries of one directory: a longer one would outgrow a block.
pub const MAX_ENTRIES: usize = 10_000;

/// Multicodec of raw bytes.
const RAW: u64 = 0x55;
/// Multicodec of dag-pb nodes.
const DAG_PB: u64 = 0x70;
/// Multihash code of SHA-256.
const SHA2_256: u64 = 0x12;
/// `UnixFS` type of a file's inner nodes.
const UNIXFS_FILE: u64 = 2;
/// `UnixFS` data of a directory: type 1 and nothing else.
pub const UNIXFS_DIRECTORY: [u8; 2] = [0x08, 0x01];

fn cid_of(codec: u64, digest: [u8; 32]) -> Cid {
    Cid::new_v1(codec, Multihash::wrap(SHA2_256, &digest).expect("a SHA-256 digest fits a multihash"))
}

/// CID of one raw block with this SHA-256: that of a file of at most [`CHUNK`] bytes.
pub fn raw(sha256: [u8; 32]) -> Cid {
    cid_of(RAW, sha256)
}

/// CID of a file with these bytes.
pub fn of(bytes: &[u8]) -> Cid {
    let mut file = FileHasher::default();
    file.update(bytes);
    file.finish().cid
}

/// Do the bytes belong to the CID? Also true for a single block of another file (`format=raw`).
pub fn matches(cid: &Cid, bytes: &[u8]) -> bool {
    of(bytes) == *cid || (cid.hash().code() == SHA2_256 && cid.hash().digest() == Sha256::digest(bytes).as_slice())
}

/// A node that a parent links to.
#[derive(Clone, Debug)]
struct Child {
    cid: Cid,
    /// Bytes of the file below it.
    content: u64,
    /// Bytes of all blocks below it.
    tree: u64,
}

/// What is known of a file once all its bytes have passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDigest {
    /// Its CID.
    pub cid: Cid,
    /// SHA-256 of all bytes, 64 hex digits.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
}

/// Computes CID and SHA-256 of a file from a stream of pieces of any size, in constant memory.
#[derive(Clone, Debug, Default)]
pub struct FileHasher {
    whole: Sha256,
    leaf: Sha256,
    in_leaf: usize,
    bytes: u64,
    leaves: Vec<Child>,
}

impl FileHasher {
    /// Takes the next piece.
    pub fn update(&mut self, mut piece: &[u8]) {
        self.whole.update(piece);
        self.bytes += piece.len() as u64;
        while !piece.is_empty() {
            let (now, later) = piece.split_at(piece.len().min(CHUNK - self.in_leaf));
            self.leaf.update(now);
            self.in_leaf += now.len();
            piece = later;
            if self.in_leaf == CHUNK {
                self.close_leaf();
            }
        }
    }

    /// Bytes taken so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The file is complete.
    pub fn finish(mut self) -> FileDigest {
        // An empty file is one empty leaf; a file that ends on a boundary has no empty leaf behind it.
        if self.in_leaf > 0 || self.leaves.is_empty() {
            self.close_leaf();
        }
        let mut level = self.leaves;
        while level.len() > 1 {
            level = level.chunks(MAX_LINKS).map(inner_node).collect();
        }
        FileDigest {
            cid: level[0].cid,
            sha256: data_encoding::HEXLOWER.encode(&self.whole.finalize()),
            bytes: self.bytes,
        }
    }

    fn close_leaf(&mut self) {
        let digest = std::mem::take(&mut self.leaf).finalize();
        let bytes = std::mem::take(&mut self.in_leaf) as u64;
        self.leaves.push(Child { cid: raw(digest.into()), content: bytes, tree: bytes });
    }
}

/// The node above up to [`MAX_LINKS`] children of a file.
fn inner_node(children: &[Child]) -> Child {
    let content = children.iter().map(|child| child.content).sum();
    let mut data = Vec::new();
    varint_field(&mut data, 1, UNIXFS_FILE);
    varint_field(&mut data, 3, content);
    for child in children {
        varint_field(&mut data, 4, child.content);
    }
    let block = node(children.iter().map(|child| ("", &child.cid, child.tree)), &data);
    Child {
        cid: cid_of(DAG_PB, Sha256::digest(&block).into()),
        content,
        tree: block.len() as u64 + children.iter().map(|child| child.tree).sum::<u64>(),
    }
}

/// One file in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name within the directory.
    pub name: String,
    /// CID of the file.
    pub cid: Cid,
    /// Its length.
    pub size: u64,
}

/// Why a list of entries is no directory.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidDirectory {
    /// Nothing in it.
    #[error("a directory needs at least one entry")]
    Empty,
    /// Too much for one block.
    #[error("a directory holds at most {MAX_ENTRIES} entries, not {0}")]
    TooLong(usize),
    /// Not a file name.
    #[error("{0:?} is no file name: use 1 to 255 bytes without '/'")]
    Name(String),
    /// The same name twice.
    #[error("{0:?} stands in the directory twice")]
    Twice(String),
}

/// A flat directory: its block and its CID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// CID of the block.
    pub cid: Cid,
    /// The dag-pb block itself.
    pub block: Vec<u8>,
    /// Entries in the order of the block: by name.
    pub entries: Vec<Entry>,
}

/// The directory of these entries; their order does not matter.
pub fn directory(mut entries: Vec<Entry>) -> Result<Directory, InvalidDirectory> {
    if entries.is_empty() {
        return Err(InvalidDirectory::Empty);
    }
    if entries.len() > MAX_ENTRIES {
        return Err(InvalidDirectory::TooLong(entries.len()));
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    for entry in &entries {
        if entry.name.is_empty() || entry.name.len() > 255 || entry.name.contains('/') {
            return Err(InvalidDirectory::Name(entry.name.clone()));
        }
    }
    if let Some(pair) = entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(InvalidDirectory::Twice(pair[0].name.clone()));
    }
    let block = node(entries.iter().map(|entry| (entry.name.as_str(), &entry.cid, entry.size)), &UNIXFS_DIRECTORY);
    Ok(Directory { cid: cid_of(DAG_PB, Sha256::digest(&block).into()), block, entries })
}

/// A dag-pb node in its canonical form: links before data, although their field number is the higher one.
fn node<'a>(links: impl Iterator<Item = (&'a str, &'a Cid, u64)>, data: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, cid, tree) in links {
        let mut link = Vec::new();
        bytes_field(&mut link, 1, &cid.to_bytes());
        bytes_field(&mut link, 2, name.as_bytes());
        varint_field(&mut link, 3, tree);
        bytes_field(&mut block, 2, &link);
    }
    bytes_field(&mut block, 1, data);
    block
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

fn varint_field(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

fn bytes_field(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that anyone can make again: `i*i mod 251`, as in `tests/storage.rs`.
    fn pattern(length: usize) -> Vec<u8> {
        (0..251u32).map(|i| u8::try_from(i * i % 251).expect("below 251")).cycle().take(length).collect()
    }

    #[test]
    fn an_empty_file_is_the_empty_raw_block() {
        assert_eq!(of(b"").to_string(), "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku");
    }

    #[test]
    fn cids_are_those_of_kubo() {
        // `ipfs add -Q -n --cid-version=1 --raw-leaves --chunker=size-2096896` of kubo 0.43.0.
        let of_kubo = [
            (1, "bafkreidogqfzz75tpkmjzjke425xqcrmpcib2p5tg44hnbirumdbpl5adu"),
            (CHUNK, "bafkreigruuuxcadrsptvvqbg456ci2j7w63wcjihukyky5euhubb3dvpci"),
            (CHUNK + 1, "bafybeicsqulblb3ksivrahyhastyuzaix2ccl7zvttynelny3u4qbael5y"),
            (2 * CHUNK, "bafybeigatmxwrh2h3kqeuuzabynxzsj7lle544ofui7q7mi34waou7x4ye"),
            (2 * CHUNK + 5, "bafybeihr2y652glmoddz5rii2cdypopcpwah4mxew4hrtpynlcp5lcuqzq"),
            (64 * 1024 * 1024, "bafybeigxhdcelks7phs4qo6gpixfqeaetie5h7v4q72iz4ptgknp2i2v3y"),
            (174 * CHUNK, "bafybeih7quo6siekzsnlnsrrynydwgxapr3i44bjp75q6ybxgz4n4mxjwe"),
            (174 * CHUNK + 1, "bafybeib5us3cl7fbxapvdn2bevia7gtptcqo2objn3aqh6mouohxxi2og4"),
            (175 * CHUNK + 7, "bafybeiarfi7n22ofpftrk6fehvdfwqzn4u3l5wkeyglkjaaf5peiy5oh7q"),
        ];
        let period = pattern(251 * 4096);
        for (length, cid) in of_kubo {
            let mut hasher = FileHasher::default();
            let mut left = length;
            while left > 0 {
                let now = left.min(period.len());
                hasher.update(&period[..now]);
                left -= now;
            }
            assert_eq!(hasher.finish().cid.to_string(), cid, "{length} bytes");
        }
    }

    #[test]
    fn up_to_a_chunk_the_cid_is_the_plain_sha256() {
        let bytes = pattern(CHUNK);
        assert_eq!(of(&bytes), raw(Sha256::digest(&bytes).into()));
        assert_eq!(of(&bytes).codec(), RAW);
        assert_eq!(of(&pattern(CHUNK + 1)).codec(), DAG_PB);
    }

    #[test]
    fn a_piece_of_another_file_is_known_by_its_own_hash() {
        let directory = directory(vec![Entry { name: "a".into(), cid: of(b"a"), size: 1 }]).expect("one entry");
        assert!(matches(&directory.cid, &directory.block));
        assert!(matches(&of(b"a"), b"a"));
        assert!(!matches(&of(b"a"), b"b"));
        let long = pattern(CHUNK + 1);
        assert!(matches(&of(&long), &long));
    }

    #[test]
    fn a_directory_does_not_depend_on_the_order_it_was_listed_in() {
        let entry = |name: &str| Entry { name: name.into(), cid: of(name.as_bytes()), size: 1 };
        let forth = directory(vec![entry("a"), entry("b")]).expect("two entries");
        let back = directory(vec![entry("b"), entry("a")]).expect("two entries");
        assert_eq!(forth, back);
    }

    #[test]
    fn bad_directories_are_refused() {
        let entry = |name: &str| Entry { name: name.into(), cid: of(b""), size: 0 };
        assert_eq!(directory(vec![]), Err(InvalidDirectory::Empty));
        assert_eq!(directory(vec![entry("a/b")]), Err(InvalidDirectory::Name("a/b".into())));
        assert_eq!(directory(vec![entry("")]), Err(InvalidDirectory::Name(String::new())));
        assert_eq!(directory(vec![entry("a"), entry("a")]), Err(InvalidDirectory::Twice("a".into())));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn pieces_of_any_size_give_the_same_digest(length in 0..3 * CHUNK, piece in 1..CHUNK * 2) {
            let bytes = pattern(length);
            let mut hasher = FileHasher::default();
            bytes.chunks(piece).for_each(|piece| hasher.update(piece));
            let digest = hasher.finish();
            prop_assert_eq!(digest.cid, of(&bytes));
            prop_assert_eq!(digest.bytes, length as u64);
        }
    }
}
