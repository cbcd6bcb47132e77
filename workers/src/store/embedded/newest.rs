//! A collector of the newest (or oldest) documents, in the order of event time, then id.
//!
//! Within a segment ids compare by their place in the segment's dictionary. Across segments only those ids are looked up that could still
//! make it onto the page.

use std::cmp::Ordering;
use std::ops::{Bound, RangeBounds};

use tantivy::collector::{Collector, SegmentCollector};
use tantivy::columnar::{Column, StrColumn};
use tantivy::{DateTime, DocAddress, DocId, Score, Searcher, SegmentOrdinal, SegmentReader};

use super::schema::{ID, TIMESTAMP};

/// Where a page begins: after this document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct After {
    pub(super) millis: i64,
    pub(super) id: String,
}

/// Which documents to keep.
#[derive(Debug, Clone)]
pub(super) struct Newest {
    pub(super) size: usize,
    pub(super) ascending: bool,
    pub(super) after: Option<After>,
}

impl Newest {
    /// The order of the page: what is less comes first.
    pub(super) fn order(&self, ordering: Ordering) -> Ordering {
        if self.ascending { ordering } else { ordering.reverse() }
    }
}

/// A document that may be on the page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) millis: i64,
    /// The id's place in the segment's dictionary.
    id_place: u64,
    pub(super) address: DocAddress,
}

/// Candidates of one index, and how many documents fit in all (on this page or not).
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) total: u64,
    pub(super) candidates: Vec<Candidate>,
}

impl Candidate {
    /// The id, from the index that the candidate came from.
    pub(super) fn id(&self, searcher: &Searcher) -> tantivy::Result<String> {
        let mut id = Vec::new();
        if let Some(ids) = searcher.segment_reader(self.address.segment_ord).fast_fields().str(ID)? {
            ids.dictionary().ord_to_term(self.id_place, &mut id)?;
        }
        Ok(String::from_utf8_lossy(&id).into_owned())
    }
}

impl Collector for Newest {
    type Fruit = Page;
    type Child = Segment;

    fn for_segment(&self, ordinal: SegmentOrdinal, segment: &SegmentReader) -> tantivy::Result<Segment> {
        let fast_fields = segment.fast_fields();
        let ids = fast_fields.str(ID)?;
        let mut start = None;
        if let (Some(after), Some(ids)) = (&self.after, &ids) {
            let id = Bound::Excluded(after.id.as_bytes());
            let (least, most) = if self.ascending { (id, Bound::Unbounded) } else { (Bound::Unbounded, id) };
            start = Some((after.millis, ids.dictionary().term_bounds_to_ord(least, most)?));
        }
        Ok(Segment {
            newest: self.clone(),
            ordinal,
            times: fast_fields.date(TIMESTAMP)?,
            ids,
            start,
            total: 0,
            kept: Vec::new(),
            last: None,
        })
    }

    fn requires_scoring(&self) -> bool {
        false
    }

    fn merge_fruits(&self, pages: Vec<Page>) -> tantivy::Result<Page> {
        let mut all = Page::default();
        for page in pages {
            all.total += page.total;
            all.candidates.extend(page.candidates);
        }
        Ok(all)
    }
}

/// A range of places of ids.
type IdPlaces = (Bound<u64>, Bound<u64>);

/// The work on one segment.
pub(super) struct Segment {
    newest: Newest,
    ordinal: SegmentOrdinal,
    times: Column<DateTime>,
    ids: Option<StrColumn>,
    /// The time that the page starts at, and the places of the ids that are on the page at that time.
    start: Option<(i64, IdPlaces)>,
    total: u64,
    /// Up to twice the page's size; then the worse half is let go.
    kept: Vec<Candidate>,
    /// What comes after this is not on the page.
    last: Option<Candidate>,
}

impl Segment {
    fn compare(&self, one: &Candidate, other: &Candidate) -> Ordering {
        self.newest.order(one.millis.cmp(&other.millis).then(one.id_place.cmp(&other.id_place)))
    }

    fn starts_before(&self, candidate: &Candidate) -> bool {
        let Some((millis, ids)) = &self.start else { return true };
        match self.newest.order(candidate.millis.cmp(millis)) {
            Ordering::Greater => true,
            Ordering::Equal => ids.contains(&candidate.id_place),
            Ordering::Less => false,
        }
    }

    fn cut(&mut self) {
        let size = self.newest.size;
        if self.kept.len() > size {
            let mut kept = std::mem::take(&mut self.kept);
            let (_, last, _) = kept.select_nth_unstable_by(size - 1, |one, other| self.compare(one, other));
            self.last = Some(*last);
            kept.truncate(size);
            self.kept = kept;
        }
    }
}

impl SegmentCollector for Segment {
    type Fruit = Page;

    fn collect(&mut self, document: DocId, _: Score) {
        self.total += 1;
        if self.newest.size == 0 {
            return;
        }
        let millis = self.times.first(document).map_or(0, DateTime::into_timestamp_millis);
        if self.last.is_some_and(|last| self.newest.order(millis.cmp(&last.millis)) == Ordering::Greater) {
            return;
        }
        let id_place = self.ids.as_ref().and_then(|ids| ids.ords().first(document)).unwrap_or(0);
        let candidate = Candidate { millis, id_place, address: DocAddress::new(self.ordinal, document) };
        if !self.starts_before(&candidate) || self.last.is_some_and(|last| self.compare(&candidate, &last) != Ordering::Less) {
            return;
        }
        self.kept.push(candidate);
        if self.kept.len() >= 2 * self.newest.size {
            self.cut();
        }
    }

    fn harvest(mut self) -> Page {
        if self.newest.size > 0 {
            self.cut();
        }
        Page { total: self.total, candidates: self.kept }
    }
}
