//! The fields of a tantivy index: the same for every family and day.
//!
//! A document becomes: its id and two times; its text as it came (`_source`, stored, never searched); words (`message`, and `words`
//! for every other string of more than one word); and `keyword`, one dynamic field that holds every other value of the document under
//! its dotted path, untouched, for exact search, wildcards, ranges and aggregations. Types never collide in it: each path keeps a column
//! for each type that came.

use std::sync::LazyLock;

use tantivy::Index;
use tantivy::schema::{
    DateOptions, DateTimePrecision, FAST, Field, IndexRecordOption, JsonObjectOptions, STORED, Schema, TextFieldIndexing, TextOptions,
};
use tantivy::tokenizer::{LowerCaser, RemoveLongFilter, SimpleTokenizer, TextAnalyzer};

/// The name of the id field.
pub(super) const ID: &str = "_id";
/// The name of the event time field.
pub(super) const TIMESTAMP: &str = "@timestamp";
/// The name of the receive time field.
pub(super) const RECEIVED: &str = "_received";
/// The name of the field that holds all exact values.
pub(super) const KEYWORD: &str = "keyword";
/// The path that is searched as text, not as an exact value.
pub(super) const MESSAGE: &str = "message";

/// How words are cut: at all but letters and digits, lower case.
const WORDS_TOKENIZER: &str = "words";
/// Longer runs of letters and digits are not words (base64, mostly); a SHA-512 in hex is.
const MAX_WORD_BYTES: usize = 255;

/// The fields' handles.
pub(super) struct Fields {
    pub(super) schema: Schema,
    pub(super) id: Field,
    pub(super) timestamp: Field,
    pub(super) received: Field,
    pub(super) source: Field,
    pub(super) message: Field,
    pub(super) words: Field,
    pub(super) keyword: Field,
}

/// The one schema.
pub(super) static FIELDS: LazyLock<Fields> = LazyLock::new(|| {
    let exact = || TextFieldIndexing::default().set_tokenizer("raw").set_index_option(IndexRecordOption::Basic).set_fieldnorms(false);
    let words = || {
        let indexing = TextFieldIndexing::default()
            .set_tokenizer(WORDS_TOKENIZER)
            .set_index_option(IndexRecordOption::WithFreqsAndPositions)
            .set_fieldnorms(false);
        TextOptions::default().set_indexing_options(indexing)
    };
    let time = || DateOptions::from(FAST).set_precision(DateTimePrecision::Milliseconds);

    let mut builder = Schema::builder();
    let id = builder.add_text_field(ID, TextOptions::default().set_indexing_options(exact()).set_fast("raw"));
    let timestamp = builder.add_date_field(TIMESTAMP, time());
    let received = builder.add_date_field(RECEIVED, time());
    let source = builder.add_bytes_field("_source", STORED);
    let message = builder.add_text_field(MESSAGE, words());
    let words = builder.add_text_field("words", words());
    let keyword = builder
        .add_json_field(KEYWORD, JsonObjectOptions::default().set_indexing_options(exact()).set_fast("raw").set_expand_dots_enabled());
    Fields { schema: builder.build(), id, timestamp, received, source, message, words, keyword }
});

/// The analyzer of [`WORDS_TOKENIZER`].
pub(super) fn words_analyzer() -> TextAnalyzer {
    TextAnalyzer::builder(SimpleTokenizer::default()).filter(RemoveLongFilter::limit(MAX_WORD_BYTES)).filter(LowerCaser).build()
}

/// Makes the tokenizer known to an index; needed at each opening.
pub(super) fn register_tokenizers(index: &Index) {
    index.tokenizers().register(WORDS_TOKENIZER, words_analyzer());
}
