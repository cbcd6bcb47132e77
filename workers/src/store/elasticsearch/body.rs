//! A request's body in pieces, which lie where they were made until they are sent.
//!
//! A bulk has megabytes in thousands of pieces. To copy them into one is to write to as much fresh memory, page by page; here they are
//! copied into small parts, in the memory of those that have gone out before. The body can be sent again: the pieces stay.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, SizeHint};

/// A part that goes out has at most so many bytes, but for one that is a single longer piece.
const PART_BYTES: usize = 32 << 10;

/// What a request carries.
#[derive(Debug, Clone, Default)]
pub(super) struct Pieces(Arc<[Bytes]>);

impl From<Vec<Bytes>> for Pieces {
    fn from(pieces: Vec<Bytes>) -> Self {
        Self(pieces.into())
    }
}

impl From<Vec<u8>> for Pieces {
    fn from(whole: Vec<u8>) -> Self {
        Self::from(vec![Bytes::from(whole)])
    }
}

impl Pieces {
    /// The body of one attempt to send them.
    pub(super) fn body(&self) -> reqwest::Body {
        let left = self.0.iter().map(|piece| piece.len() as u64).sum();
        reqwest::Body::wrap(Parts { pieces: Arc::clone(&self.0), next: 0, left })
    }
}

/// Pieces on their way out.
struct Parts {
    pieces: Arc<[Bytes]>,
    next: usize,
    /// Bytes from the next piece on.
    left: u64,
}

impl Parts {
    fn next_part(&mut self) -> Option<Bytes> {
        let first = self.pieces.get(self.next)?.clone();
        let mut bytes = first.len();
        let mut end = self.next + 1;
        while let Some(piece) = self.pieces.get(end)
            && bytes + piece.len() <= PART_BYTES
        {
            bytes += piece.len();
            end += 1;
        }
        let alone = end == self.next + 1;
        let together = &self.pieces[self.next..end];
        self.next = end;
        self.left -= bytes as u64;
        if alone {
            return Some(first);
        }
        let mut part = BytesMut::with_capacity(bytes);
        together.iter().for_each(|piece| part.extend_from_slice(piece));
        Some(part.freeze())
    }
}

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.get_mut().next_part().map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn all_of_the_pieces_go_out_in_order_and_in_few_parts(lengths in prop::collection::vec(0..PART_BYTES * 2, 0..20)) {
            let whole: Vec<u8> = (0..lengths.iter().sum()).map(|at: usize| at.to_le_bytes()[1]).collect();
            let mut left = Bytes::from(whole.clone());
            let pieces: Arc<[Bytes]> = lengths.iter().map(|length| left.split_to(*length)).collect();
            let mut parts = Parts { pieces, next: 0, left: whole.len() as u64 };
            let mut sent: Vec<Bytes> = Vec::new();

            while let Some(part) = parts.next_part() {
                sent.push(part);
                prop_assert_eq!(parts.left as usize + sent.iter().map(Bytes::len).sum::<usize>(), whole.len());
            }

            prop_assert_eq!(sent.concat(), whole);
            prop_assert!(sent.windows(2).all(|two| two[0].len() + two[1].len() > PART_BYTES));
        }
    }
}
