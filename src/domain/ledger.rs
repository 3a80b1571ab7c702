//! The append-only record of starts and stops (row C4): each row carries the hash of the one before, so that a row
//! altered, removed or slipped in shows.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// `prev_hash` of the first row.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Counts from 1 without a hole.
    pub id: i64,
    /// When it was written down.
    pub at: Timestamp,
    /// `start` or `stop`.
    pub kind: String,
    /// What happened, as JSON text: hashed to the letter.
    pub body: String,
    /// Hash of the row before.
    pub prev_hash: String,
    /// Hash of this row.
    pub hash: String,
}

/// Hash of a row: SHA-256 over its fields and the hash before, each preceded by its length.
pub fn hash(id: i64, at: Timestamp, kind: &str, body: &str, prev_hash: &str) -> String {
    let mut digest = Sha256::new();
    for field in [prev_hash, &id.to_string(), &at.as_microsecond().to_string(), kind, body] {
        // Lengths keep ("ab", "c") and ("a", "bc") apart.
        digest.update((field.len() as u64).to_be_bytes());
        digest.update(field.as_bytes());
    }
    data_encoding::HEXLOWER.encode(&digest.finalize())
}

/// Where a chain breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger does not follow from row {id} on: it was altered outside of the recorder")]
pub struct Broken {
    /// The first row that does not fit.
    pub id: i64,
}

/// Checks a chain row by row.
#[derive(Clone, Debug)]
pub struct Verifier {
    next_id: i64,
    prev_hash: String,
}

impl Default for Verifier {
    fn default() -> Self {
        Self { next_id: 1, prev_hash: GENESIS.to_owned() }
    }
}

impl Verifier {
    /// Takes the next row.
    pub fn check(&mut self, row: &Row) -> Result<(), Broken> {
        let right = row.id == self.next_id
            && row.prev_hash == self.prev_hash
            && row.hash == hash(row.id, row.at, &row.kind, &row.body, &row.prev_hash);
        if !right {
            return Err(Broken { id: self.next_id });
        }
        self.next_id += 1;
        self.prev_hash.clone_from(&row.hash);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(count: i64) -> Vec<Row> {
        let mut prev_hash = GENESIS.to_owned();
        (1..=count)
            .map(|id| {
                let at = Timestamp::from_second(id).expect("in range");
                let hash = hash(id, at, "start", "{}", &prev_hash);
                let row = Row { id, at, kind: "start".into(), body: "{}".into(), prev_hash: prev_hash.clone(), hash };
                prev_hash.clone_from(&row.hash);
                row
            })
            .collect()
    }

    fn verify(rows: &[Row]) -> Result<(), Broken> {
        let mut verifier = Verifier::default();
        rows.iter().try_for_each(|row| verifier.check(row))
    }

    #[test]
    fn an_untouched_chain_holds() {
        assert_eq!(verify(&chain(4)), Ok(()));
    }

    #[test]
    fn an_altered_removed_or_moved_row_shows() {
        let mut altered = chain(4);
        altered[1].body = r#"{"x":1}"#.into();
        assert_eq!(verify(&altered), Err(Broken { id: 2 }));
        let mut removed = chain(4);
        removed.remove(2);
        assert_eq!(verify(&removed), Err(Broken { id: 3 }));
        let mut moved = chain(4);
        moved.swap(0, 1);
        assert_eq!(verify(&moved), Err(Broken { id: 1 }));
    }
}
