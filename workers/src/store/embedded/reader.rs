//! A look at a store that another process may have open: searches only, nothing is written.
//!
//! Each search sees what was committed when it began. The locks of a store are for writers, so this takes none; tantivy itself keeps the
//! files of an index from being removed while a reader opens them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::civil::Date;
use tantivy::Searcher;

use super::is_series;
use super::partition::{Partition, index_failed, unavailable};
use super::search::Search;
use super::series::start_of;
use crate::store::{Family, SearchRequest, SearchResponse, StoreError};

/// The store in a folder, for searches.
pub struct StoreReader {
    folder: PathBuf,
}

impl StoreReader {
    /// The store in a folder, which must be there.
    ///
    /// # Errors
    ///
    /// If there is no store in the folder.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        if !folder.join("records.redb").is_file() {
            return Err(StoreError::BadRequest(format!("{} holds no store; name the data folder of `redoubt run`", folder.display())));
        }
        Ok(Self { folder: folder.to_owned() })
    }

    /// Searches a family. Blocks.
    ///
    /// # Errors
    ///
    /// If the request makes no sense, or the disk fails.
    pub fn search(&self, family: Family, request: &SearchRequest) -> Result<SearchResponse, StoreError> {
        let search = Search::new(request, jiff::Timestamp::now())?;
        let folder = self.folder.join(family.as_str());
        let indices = if is_series(family) { days(&folder, request.received_from_millis)? } else { vec![folder] };
        let mut searchers: Vec<Searcher> = Vec::with_capacity(indices.len());
        for index in indices {
            if let Some(partition) = Partition::open_existing(&index)? {
                searchers.push(partition.searcher(Duration::ZERO).map_err(|error| index_failed(&error))?);
            }
        }
        search.run(&searchers)
    }
}

/// The folders of the days of a series on which something may have been received since a time.
fn days(series: &Path, received_from_millis: Option<i64>) -> Result<Vec<PathBuf>, StoreError> {
    let entries = match std::fs::read_dir(series) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unavailable(series, &error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| unavailable(series, &error))?.path();
        let day: Option<Date> = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        let ends = day.and_then(|day| day.tomorrow().ok()).and_then(start_of);
        let too_old = received_from_millis.zip(ends).is_some_and(|(from, ends)| ends <= from);
        if day.is_some() && !too_old {
            found.push(path);
        }
    }
    Ok(found)
}
