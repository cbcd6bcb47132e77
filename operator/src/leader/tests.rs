use std::convert::Infallible;

use http::StatusCode;
use tower::{ServiceExt as _, service_fn};

use super::*;

/// Sends a request through the layer, to a server that answers so.
async fn send(renewals: &Renewals, method: Method, status: StatusCode) {
    let server = service_fn(move |_: Request<Body>| async move {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        Ok::<_, Infallible>(response)
    });
    let request = Request::builder().method(method).body(Body::empty()).unwrap();
    drop(renewals.layer(server.map_err(BoxError::from)).oneshot(request).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_not_renewed_in_time_is_not_relied_on() {
    let renewals = Renewals::default();
    let begun = Instant::now();
    let ends = tokio::spawn({
        let renewals = renewals.clone();
        async move { renewals.too_old().await }
    });

    for (method, status) in [
        (Method::PATCH, StatusCode::OK),
        (Method::GET, StatusCode::OK),
        (Method::PATCH, StatusCode::INTERNAL_SERVER_ERROR),
        (Method::PATCH, StatusCode::CONFLICT),
    ] {
        tokio::time::sleep(Duration::from_secs(5)).await;
        send(&renewals, method, status).await;
    }
    ends.await.unwrap();

    // The write after 5 s was the last one that succeeded.
    assert_eq!(begun.elapsed().as_secs(), 20.max(5 + GOOD_FOR.as_secs()));
}

#[test]
fn the_lease_is_given_up_before_it_can_be_taken() {
    let time_to_end = Duration::from_secs(LASTS) - GOOD_FOR;

    assert!(time_to_end >= Duration::from_secs(3));
    // Between the renewal that fails and the end there is time for another one.
    assert!(GOOD_FOR > Duration::from_secs(LASTS - RENEWED_BEFORE) + CALL + PAUSE + CALL - Duration::from_millis(1));
}
