//! Which ids an index may hold, in memory: most ids that are looked for are new, and a look into the index costs more than all the rest
//! of the way of a document.
//!
//! Bloom filters (Bloom 1970) in a row, each of a fixed size, so that the row grows with the index: about 12 bits an id. One new id in some
//! hundreds is taken for one that may be there, and looked for.

use fastbloom::BloomFilter;

/// Ids that one filter of the row takes.
const IDS_A_FILTER: usize = 1 << 20;
/// Bits that one filter has.
const BITS_A_FILTER: usize = 12 * IDS_A_FILTER;

/// A set of ids that may say yes to one that it does not hold, never no to one that it does.
pub(super) struct Ids {
    full: Vec<BloomFilter>,
    filling: BloomFilter,
    /// Ids in the last filter.
    held: usize,
}

impl Ids {
    pub(super) fn new() -> Self {
        Self { full: Vec::new(), filling: empty(), held: 0 }
    }

    /// Notes an id.
    pub(super) fn insert(&mut self, id: &[u8]) {
        if self.held == IDS_A_FILTER {
            self.full.push(std::mem::replace(&mut self.filling, empty()));
            self.held = 0;
        }
        self.filling.insert(id);
        self.held += 1;
    }

    /// Whether an id may have been noted.
    pub(super) fn may_hold(&self, id: &[u8]) -> bool {
        self.filling.contains(id) || self.full.iter().any(|filter| filter.contains(id))
    }
}

fn empty() -> BloomFilter {
    BloomFilter::with_num_bits(BITS_A_FILTER).expected_items(IDS_A_FILTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_may_be_there_and_most_else_is_not() {
        let mut ids = Ids::new();
        let count = IDS_A_FILTER + 1000;
        for number in 0..count {
            ids.insert(number.to_string().as_bytes());
        }

        assert!((0..count).all(|number| ids.may_hold(number.to_string().as_bytes())));
        let taken = (0..10_000).filter(|number| ids.may_hold(format!("other-{number}").as_bytes())).count();
        assert!(taken < 200, "{taken} of 10,000 that are not there");
        assert_eq!(ids.full.len(), 1);
    }
}
