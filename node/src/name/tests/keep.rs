//! Other people's records, kept alive.

use super::*;
use crate::name::keep::KeepError;

/// Others have these in the search of this number, and no more.
async fn others_have(bench: &Bench, at: usize, records: Vec<Result<Vec<u8>, RoutingError>>) {
    let search = bench.others.search(at).await;
    records
        .into_iter()
        .for_each(|value| search.try_send(value).unwrap());
    drop(search);
    bench.others.end();
}

async fn kept(bench: &Bench, sequence: u64) -> Record {
    let others = others_have(bench, 0, vec![bench.valid(sequence)]);
    let name = bench.name();
    let (kept, ()) = futures::join!(bench.names.keep_alive(&name), others);
    kept.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_name_of_somebody_else_is_told_again_and_the_newest_record_of_it() {
    let bench = Bench::new();
    assert_eq!(kept(&bench, 3).await.sequence(), 3);
    let noted = bench.names.kept();
    assert_eq!(noted.len(), 1);
    assert_eq!((noted[0].0, noted[0].1.sequence()), (bench.name(), 3));
    let mut job = Republish::new(bench.names.clone(), Arc::new(Ring::default()), EVERY);
    for (at, found, told) in [(1, Some(5), 5), (2, None, 5), (3, Some(4), 5)] {
        let found = found.map(|sequence| bench.valid(sequence));
        let others = others_have(&bench, at, Vec::from_iter(found));
        futures::join!(turn(&mut job), others);
        let last = bench.others.told.lock().unwrap().last().cloned().unwrap();
        let last = Record::decode(&bench.name(), &last).unwrap();
        assert_eq!(last.sequence(), told, "turn {at}");
        assert_eq!(bench.names.kept()[0].1.sequence(), told, "turn {at}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_resolves_after_a_restart_and_nobody_is_told_of_what_has_expired() {
    let bench = Bench::new();
    kept(&bench, 3).await;
    let name = bench.name();
    let store = bench.names.0.store.clone();
    let again = Names::over(store, None, Options::default(), &Tasks::new(), now);
    let resolved = again.resolve(&name, How::Usual).await;
    assert_eq!(resolved.unwrap().sequence(), 3);
    // The records of these tests hold for an hour.
    let later = || now() + Duration::from_secs(7200);
    let network: Arc<dyn Network> = Arc::new(bench.others.clone());
    let names = Names::over(
        bench.names.0.store.clone(),
        Some(network),
        Options::default(),
        &Tasks::new(),
        later,
    );
    let mut job = Republish::new(names.clone(), Arc::new(Ring::default()), EVERY);
    futures::join!(turn(&mut job), others_have(&bench, 1, vec![]));
    assert_eq!(*bench.others.told.lock().unwrap(), Vec::<Vec<u8>>::new());
    assert_eq!(names.kept().len(), 1, "its owner may come back");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_denied_is_told_of_no_more() {
    let bench = Bench::new();
    kept(&bench, 3).await;
    let lists = tempfile::tempdir().unwrap();
    let rule = format!("/ipns/{}\n", ipns::text(&bench.name()));
    std::fs::write(lists.path().join("own.deny"), rule).unwrap();
    let denylist = Denylist::new(vec![lists.path().to_owned()]);
    denylist.reload();
    bench.names.denying(denylist);
    let mut job = Republish::new(bench.names.clone(), Arc::new(Ring::default()), EVERY);
    turn(&mut job).await;
    assert_eq!(*bench.others.told.lock().unwrap(), Vec::<Vec<u8>>::new());
    assert_eq!(bench.others.count(), 1, "nor is it looked for");
    assert_eq!(bench.names.kept().len(), 1, "it may be allowed again");
}

#[tokio::test(start_paused = true)]
async fn a_name_is_let_go_and_one_of_our_own_is_not_taken() {
    let bench = Bench::new();
    let name = bench.name();
    let unknown = bench.names.let_go(&name).await;
    assert!(matches!(unknown, Err(KeepError::NotKept)));
    kept(&bench, 3).await;
    bench.names.let_go(&name).await.unwrap();
    assert_eq!(bench.names.kept(), []);
    let wish = wish("/ipfs/bafkqaaa");
    let own = bench.names.publish(&bench.keys, &wish);
    let others = others_have(&bench, 1, vec![]);
    futures::join!(own, others).0.unwrap();
    let own = bench.names.keep_alive(&name).await;
    assert!(matches!(own, Err(KeepError::Own)));
}
