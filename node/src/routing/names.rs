//! Records of names from the DHT and from routers as one, and what comes of having both keep one.
//!
//! Every record was checked where it came from, so no side can hide what another knows: all of them are given on, and
//! whoever asks takes the newest.

use super::RoutingError;
use super::routers::{Known, Put};
use futures::stream::{self, BoxStream, Stream, StreamExt};

/// What comes from either side.
enum Event {
    Dht(Result<Vec<u8>, RoutingError>),
    Router(Known),
}

/// The records of a name as they come. An error of the DHT comes last, unless it had nobody to ask and a router
/// answered.
pub(super) fn merge(
    dht: BoxStream<'static, Result<Vec<u8>, RoutingError>>,
    routers: BoxStream<'static, Known>,
) -> impl Stream<Item = Result<Vec<u8>, RoutingError>> + Send + 'static {
    let events = stream::select(dht.map(Event::Dht), routers.map(Event::Router));
    let state = (events, Ended::default());
    stream::unfold(state, |(mut events, mut ended)| async {
        while let Some(event) = events.next().await {
            match event {
                Event::Dht(Ok(record)) => return Some((Ok(record), (events, ended))),
                Event::Router(Known::Record(record)) => {
                    ended.has_answer = true;
                    return Some((Ok(record), (events, ended)));
                }
                Event::Router(Known::Nothing) => ended.has_answer = true,
                Event::Router(Known::Unsaid) => {}
                Event::Dht(Err(error)) => ended.error = Some(error),
            }
        }
        let error = ended.error.take()?;
        match error {
            RoutingError::NoPeers if ended.has_answer => None,
            error => Some((Err(error), (events, ended))),
        }
    })
}

#[derive(Debug, Default)]
struct Ended {
    /// Whether a router gave one.
    has_answer: bool,
    /// What the DHT ended with.
    error: Option<RoutingError>,
}

/// How many keep a record that was handed to the DHT and to routers. That a newer one is known counts for more than
/// who took it: the name goes on pointing where that one says.
pub(super) fn kept(
    dht: Result<usize, RoutingError>,
    routers: &[Put],
) -> Result<usize, RoutingError> {
    let took = routers.iter().filter(|put| **put == Put::Taken).count();
    match dht {
        Ok(peers) => Ok(peers + took),
        Err(RoutingError::NewerValueKept) => Err(RoutingError::NewerValueKept),
        Err(_) if took > 0 => Ok(took),
        Err(_) if routers.contains(&Put::Newer) => Err(RoutingError::NewerValueKept),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dht(
        records: &[&str],
        error: Option<RoutingError>,
    ) -> BoxStream<'static, Result<Vec<u8>, RoutingError>> {
        let records: Vec<_> = records
            .iter()
            .map(|text| Ok(text.as_bytes().to_vec()))
            .collect();
        stream::iter(records.into_iter().chain(error.map(Err))).boxed()
    }

    async fn all(
        dht: BoxStream<'static, Result<Vec<u8>, RoutingError>>,
        routers: &[Known],
    ) -> (Vec<String>, Option<RoutingError>) {
        let routers = stream::iter(routers.to_vec()).boxed();
        let (mut records, mut error) = (Vec::new(), None);
        let mut merged = std::pin::pin!(merge(dht, routers));
        while let Some(item) = merged.next().await {
            assert!(error.is_none(), "an error is the last item");
            match item {
                Ok(record) => records.push(String::from_utf8(record).unwrap()),
                Err(last) => error = Some(last),
            }
        }
        records.sort();
        (records, error)
    }

    fn record(text: &str) -> Known {
        Known::Record(text.as_bytes().to_vec())
    }

    #[tokio::test]
    async fn no_side_hides_what_the_other_knows() {
        let (records, error) = all(dht(&["a", "b"], None), &[record("c"), Known::Unsaid]).await;
        assert_eq!((records.join(""), error.is_none()), ("abc".into(), true));
        // An error comes after what a router says later.
        let late = Some(RoutingError::LookupTooSlow);
        let (records, error) = all(dht(&[], late.clone()), &[Known::Unsaid, record("c")]).await;
        assert_eq!(records.join(""), "c");
        assert!(matches!(error, Some(RoutingError::LookupTooSlow)));
        let (records, error) = all(dht(&["a"], late), &[Known::Nothing]).await;
        assert_eq!(records.join(""), "a");
        assert!(error.is_some());
    }

    #[tokio::test]
    async fn who_has_nobody_but_a_router_to_ask_has_an_answer_all_the_same() {
        let alone = || dht(&[], Some(RoutingError::NoPeers));
        for (said, has_error) in [
            (record("a"), false),
            (Known::Nothing, false),
            (Known::Unsaid, true),
        ] {
            let (_, error) = all(alone(), &[said]).await;
            assert_eq!(error.is_some(), has_error);
        }
    }

    #[test]
    fn whoever_takes_it_counts_and_that_a_newer_one_is_known_is_told() {
        use Put::{Newer, Not, Taken};
        let count = |dht, routers: &[Put]| kept(dht, routers).map_err(|error| error.to_string());
        let text = |error: RoutingError| Err(error.to_string());
        assert_eq!(count(Ok(3), &[Taken, Not, Newer]), Ok(4));
        for alone in [RoutingError::NoPeers, RoutingError::ValueNotTaken] {
            assert_eq!(count(Err(alone.clone()), &[Not, Taken]), Ok(1));
            assert_eq!(count(Err(alone.clone()), &[Not]), text(alone.clone()));
            let newer = text(RoutingError::NewerValueKept);
            assert_eq!(count(Err(alone), &[Not, Newer]), newer);
        }
        let newer = count(Err(RoutingError::NewerValueKept), &[Taken]);
        assert_eq!(newer, text(RoutingError::NewerValueKept));
    }
}
