//! The query syntax as a tree, and what holds for every text.

use std::ops::Bound;

use proptest::prelude::*;

use super::syntax::{Part, Query, Text, Value, parse};

fn text(literal: &str) -> Text {
    Text(literal.chars().map(|character| if character == '*' { Part::Many } else { Part::Char(character) }).collect())
}

fn word(field: &str, value: &str) -> Query {
    Query::Field { field: Some(text(field)), value: Value::Word(text(value)), position: 0 }
}

/// The tree without positions, which tests of shape need not know.
fn shape(query: Query) -> Query {
    let all = |queries: Vec<Query>| queries.into_iter().map(shape).collect();
    match query {
        Query::Field { field, value, .. } => Query::Field { field, value, position: 0 },
        Query::Bool { must, should, must_not } => Query::Bool { must: all(must), should: all(should), must_not: all(must_not) },
        other => other,
    }
}

fn must(queries: Vec<Query>) -> Query {
    Query::Bool { must: queries, should: Vec::new(), must_not: Vec::new() }
}

fn should(queries: Vec<Query>) -> Query {
    Query::Bool { must: Vec::new(), should: queries, must_not: Vec::new() }
}

fn not(query: Query) -> Query {
    Query::Bool { must: Vec::new(), should: Vec::new(), must_not: vec![query] }
}

#[test]
fn operators_bind_as_documented() {
    let (a, b, c) = (|| word("f", "a"), || word("f", "b"), || word("f", "c"));
    for (query, tree) in [
        ("f:a", a()),
        ("((f:a))", a()),
        ("f:a f:b", should(vec![a(), b()])),
        ("f:a OR f:b OR f:c", should(vec![a(), b(), c()])),
        ("f:a AND f:b AND f:c", must(vec![a(), b(), c()])),
        ("f:a AND f:b OR f:c", should(vec![must(vec![a(), b()]), c()])),
        ("f:a OR f:b AND f:c", should(vec![a(), must(vec![b(), c()])])),
        ("f:a AND (f:b OR f:c)", must(vec![a(), should(vec![b(), c()])])),
        ("NOT f:a", not(a())),
        ("NOT NOT f:a", a()),
        ("f:a AND NOT f:b", must(vec![a(), not(b())])),
        ("f:a AND -f:b", must(vec![a(), not(b())])),
        ("f:a OR NOT f:b", should(vec![a(), not(b())])),
        ("f:a -f:b", Query::Bool { must: vec![], should: vec![a()], must_not: vec![b()] }),
        ("f:a NOT f:b", Query::Bool { must: vec![], should: vec![a()], must_not: vec![b()] }),
        ("f:a (NOT f:b)", should(vec![a(), not(b())])),
        ("+f:a f:b -f:c", Query::Bool { must: vec![a()], should: vec![b()], must_not: vec![c()] }),
        ("f:(a OR b)", should(vec![a(), b()])),
        ("f:(a AND NOT b)", must(vec![a(), not(b())])),
        ("f:ORDER", word("f", "ORDER")),
        ("f:a-b", word("f", "a-b")),
        ("f:a:b", word("f", "a:b")),
    ] {
        assert_eq!(shape(parse(query).unwrap()), tree, "{query}");
    }
}

#[test]
fn ranges_keep_their_ends() {
    let (included, excluded) = (|end: &str| Bound::Included(end.to_owned()), |end: &str| Bound::Excluded(end.to_owned()));
    for (query, lower, upper) in [
        ("f:[1 TO 5]", included("1"), included("5")),
        ("f:{1 TO 5}", excluded("1"), excluded("5")),
        ("f:[1 TO 5}", included("1"), excluded("5")),
        ("f:[* TO 5]", Bound::Unbounded, included("5")),
        ("f:[1 TO *}", included("1"), Bound::Unbounded),
        ("f:[\"a b\" TO c\\ d]", included("a b"), included("c d")),
        ("f:[-5 TO -1]", included("-5"), included("-1")),
        ("f:>1", excluded("1"), Bound::Unbounded),
        ("f:>=1", included("1"), Bound::Unbounded),
        ("f:<-1.5", Bound::Unbounded, excluded("-1.5")),
        ("f:<=\"a b\"", Bound::Unbounded, included("a b")),
    ] {
        let expected = Query::Field { field: Some(text("f")), value: Value::Range { lower, upper }, position: 0 };

        assert_eq!(parse(query).unwrap(), expected, "{query}");
    }
}

proptest! {
    #[test]
    fn every_text_is_read_or_refused_with_a_place_within_it(query in "[a-c:()\"\\[\\]{}\\\\*?~^/+!&|<>=. \n-]{0,40}|\\PC{0,40}| ?(a|AND|OR|NOT|TO|f:|\\(|\\)| ){0,20}") {
        if let Err(error) = parse(&query) {
            let message = error.to_string();
            let place: usize = message.strip_prefix("query, character ").unwrap().split(':').next().unwrap().parse().unwrap();
            prop_assert!((1..=query.chars().count() + 1).contains(&place), "{}: {}", query, message);
        }
    }

    #[test]
    fn a_value_with_all_escaped_is_that_value(value in "\\PC{1,30}") {
        let escaped: String = value.chars().flat_map(|character| ['\\', character]).collect();
        let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");

        let as_word = parse(&format!("f:{escaped}")).unwrap();
        let as_phrase = parse(&format!("f:\"{quoted}\"")).unwrap();

        let parts = value.chars().map(Part::Char).collect();
        prop_assert_eq!(as_word, Query::Field { field: Some(text("f")), value: Value::Word(Text(parts)), position: 0 });
        let phrase = Value::Phrase { text: value, slop: 0 };
        prop_assert_eq!(as_phrase, Query::Field { field: Some(text("f")), value: phrase, position: 0 });
    }
}
