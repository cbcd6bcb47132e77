//! The cases by name. An implementation joins by a [`super::fixture::Harness`] and one line: `store_conformance!(ItsHarness);`.
//!
//! The cases share nothing, so they may run at the same time against one server when `fresh` keeps them apart.

/// Runs every case of the suite against a harness, each as a test of its own.
macro_rules! store_conformance {
    ($harness:ty) => {
        store_conformance!(
            $harness:
            documents::what_was_answered_is_found_after_a_refresh,
            documents::what_was_answered_is_found_after_a_while_without_one,
            documents::what_was_answered_survives_a_crash,
            documents::an_empty_bulk_is_fine,
            documents::of_one_id_in_a_bulk_the_first_stands,
            documents::a_repeat_changes_nothing_of_what_was_received_on_the_same_day_or_beside_it,
            documents::of_repeats_in_bulks_at_the_same_time_one_stands,
            documents::hits_come_newest_first_and_then_by_id,
            documents::pages_hold_every_document_once,
            documents::a_size_of_none_counts_and_one_too_large_is_refused,
            documents::a_time_range_takes_in_its_start_and_not_its_end,
            documents::filters_take_exact_values,
            documents::a_document_without_a_time_has_its_receive_time,
            documents::families_are_apart,
            documents::strange_documents_are_taken_and_come_back_untouched,
            documents::a_path_may_hold_every_type,
            documents::a_refused_document_harms_no_other,
            documents::records_are_no_documents,
            documents::days_past_their_time_are_deleted_whole,
            documents::concurrent_bulks_lose_and_double_nothing,
            queries::each_part_of_the_query_syntax_finds_what_it_says,
            queries::a_query_that_makes_no_sense_is_refused,
            aggregations::results_are_elasticsearchs_json,
            aggregations::results_span_days_and_respect_the_query,
            aggregations::nothing_found_is_empty_and_not_an_error,
            aggregations::what_is_not_known_is_refused,
            records::a_put_holds_to_what_it_expects,
            records::a_batch_sees_its_own_writes,
            records::an_id_that_was_deleted_is_absent,
            records::what_was_put_survives_a_crash,
            records::records_are_searched_as_last_written,
            records::of_two_writers_on_one_version_exactly_one_wins,
            records::time_series_are_no_records,
            records::records_past_their_time_are_deleted
        );
    };
    ($harness:ty: $($module:ident::$case:ident),+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            if let Some(why) = <$harness as $crate::store::fixture::Harness>::absent() {
                eprintln!("skipped: {why}");
                return;
            }
            $crate::store::$module::$case::<$harness>().await;
        })+
    };
}
