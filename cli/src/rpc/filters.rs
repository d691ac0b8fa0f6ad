//! `swarm filters`: where nobody is dialled or taken from. A change holds at once, and is written down.

use super::api::Call;
use super::error::RpcError;
use super::reply::Reply;
use super::swarm::Strings;
use crate::config::edit;
use cairn_node::swarm::Filter;

fn current(call: &Call) -> Result<Vec<Filter>, RpcError> {
    Ok(call.context.repository.config()?.swarm.filters)
}

fn write(call: &Call, filters: Vec<Filter>) -> Result<(), RpcError> {
    let repository = &call.context.repository;
    let (text, _) = edit::set_list(&repository.config_text()?, KEY, &texts(&filters))?;
    repository.write_config(&text)?;
    if let Ok(online) = call.context.node() {
        online.peers.set_filters(filters);
    }
    Ok(())
}

fn texts(filters: &[Filter]) -> Vec<String> {
    filters.iter().map(ToString::to_string).collect()
}

fn given(call: &Call) -> Result<Vec<Filter>, RpcError> {
    let texts = call.arguments.some("address")?;
    let read = texts.into_iter().map(|text| {
        let parsed = text.parse::<Filter>();
        parsed.map_err(|error| RpcError::wrong(error.to_string()))
    });
    read.collect()
}

fn reply(filters: &[Filter]) -> Result<Reply, RpcError> {
    let strings = texts(filters);
    Reply::value(&Strings { strings })
}

/// `swarm filters`: those that hold.
pub fn list(call: Call) -> Result<Reply, RpcError> {
    match call.context.node() {
        Ok(online) => reply(&online.peers.filters()),
        Err(_) => reply(&current(&call)?),
    }
}

/// `swarm filters add`.
pub async fn add(call: Call) -> Result<Reply, RpcError> {
    let given = given(&call)?;
    let _alone = call.context.repository.lock_config().await?;
    let mut filters = current(&call)?;
    let mut added = Vec::new();
    for filter in given {
        if !filters.contains(&filter) {
            filters.push(filter);
            added.push(filter);
        }
    }
    if filters.len() > FILTERS_MAX {
        return Err(RpcError::failed(format!(
            "there may be {FILTERS_MAX} filters; wider ranges need fewer"
        )));
    }
    write(&call, filters)?;
    reply(&added)
}

/// `swarm filters rm`.
pub async fn remove(call: Call) -> Result<Reply, RpcError> {
    let is_all = matches!(call.arguments.some("address")?.as_slice(), ["all" | "*"]);
    let given = match is_all {
        true => Vec::new(),
        false => given(&call)?,
    };
    let _alone = call.context.repository.lock_config().await?;
    let goes = |filter: &Filter| is_all || given.contains(filter);
    let (removed, left): (Vec<Filter>, _) = current(&call)?.into_iter().partition(goes);
    write(&call, left)?;
    reply(&removed)
}

const KEY: &str = "swarm.filters";
/// Each is looked at for each dial and arrival.
const FILTERS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::super::api::Api;
    use super::super::context::Context;
    use crate::config::TEMPLATE;
    use crate::repository::Repository;
    use axum::body::Body;
    use http::Request;
    use http_body_util::BodyExt;
    use std::sync::Arc;

    async fn ask(api: &Api, command: &str) -> String {
        let request = Request::post(format!("/api/v0/swarm/filters{command}"));
        let response = api.handle(request.body(Body::empty()).unwrap()).await;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn filters_are_added_once_and_removed_one_by_one_or_all() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::at(folder.path());
        repository.write_config(TEMPLATE).unwrap();
        let api = Api::new(Arc::new(Context::offline(repository)));
        let one = "{\"Strings\":[\"/ip4/10.0.0.0/ipcidr/8\"]}\n";
        assert_eq!(ask(&api, "/add?arg=/ip4/10.0.0.0/ipcidr/8").await, one);
        assert_eq!(ask(&api, "/add?arg=10.1.2.3/8").await, "{\"Strings\":[]}\n");
        assert_eq!(ask(&api, "").await, one);
        ask(&api, "/add?arg=fc00::/7").await;
        assert_eq!(ask(&api, "/rm?arg=10.0.0.0/8").await, one);
        let other = "{\"Strings\":[\"/ip6/fc00::/ipcidr/7\"]}\n";
        assert_eq!(ask(&api, "").await, other);
        assert_eq!(ask(&api, "/rm?arg=all").await, other);
        assert_eq!(ask(&api, "").await, "{\"Strings\":[]}\n");
        let refused = ask(&api, "/add?arg=10.0.0.0").await;
        assert!(refused.contains("no range of addresses"), "{refused}");
    }
}
