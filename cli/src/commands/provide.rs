//! `provide`: what the network is told of.

use super::Shell;
use crate::args::ProvideCommand;
use crate::config::duration::Interval;
use crate::exit::Failure;
use crate::output::{Printer, escape_line};
use crate::rpc::provide::{KeyAnswer, ProvideAnswer};
use cairn_node::explain::counted;
use std::time::Duration;

/// `provide`.
pub async fn provide(shell: &mut Shell, command: ProvideCommand) -> Result<(), Failure> {
    let ProvideCommand::Stat { cid } = command;
    let question = shell.question("provide/stat").args(cid);
    shell
        .print_each(question, |answer: ProvideAnswer, printer| {
            match &answer.key {
                Some(key) => print_key(key, printer),
                None => print_stat(&answer, printer),
            }
        })
        .await
}

fn print_stat(answer: &ProvideAnswer, printer: &mut Printer) -> Result<(), Failure> {
    let (sweep, own) = (&answer.sweep, &answer.cairn);
    let (schedule, past) = (&sweep.schedule, &sweep.operations.past);
    let interval = Interval(Duration::from_nanos(sweep.timing.reprovides_interval));
    let turn = Interval(Duration::from_millis(past.reprovide_duration / 1_000_000));
    let lines = [
        ("Strategy", own.strategy.clone()),
        ("Interval", interval.to_string()),
        ("Keys", schedule.keys.to_string()),
        ("KeysWaiting", sweep.queues.pending_key_provides.to_string()),
        ("GatheredAt", or_never(&own.gathered_at)),
        ("NetworkSize", sweep.network.peers.to_string()),
        ("Regions", schedule.regions.to_string()),
        ("PrefixBits", schedule.avg_prefix_length.to_string()),
        ("RegionsDone", own.regions_done.to_string()),
        (
            "RegionsLate",
            sweep.queues.pending_region_reprovides.to_string(),
        ),
        ("RegionsActive", sweep.workers.active.to_string()),
        ("RegionsFailing", own.regions_failing.to_string()),
        ("Failures", own.failures.to_string()),
        ("RegionTime", turn.to_string()),
        ("LastAt", or_never(&own.last_at)),
        ("NextAt", or_never(&schedule.next_reprovide_at)),
        ("KeysProvided", past.keys_provided.to_string()),
        ("KeysLastHour", own.keys_last_hour.to_string()),
    ];
    for (name, value) in lines {
        printer.line(&format!("{name}: {}", escape_line(&value)))?;
    }
    Ok(())
}

fn print_key(key: &KeyAnswer, printer: &mut Printer) -> Result<(), Failure> {
    printer.line(&format!("Cid: {}", escape_line(&key.cid)))?;
    let in_set = match (key.provided, key.why_not.as_str()) {
        (true, _) => "yes".to_owned(),
        (false, "") => "no".to_owned(),
        (false, why) => format!("no, {why}"),
    };
    printer.line(&format!("InSet: {}", escape_line(&in_set)))?;
    printer.line(&format!("LastAt: {}", escape_line(&or_never(&key.last_at))))?;
    printer.line(&format!("NextAt: {}", escape_line(&or_never(&key.next_at))))?;
    printer.line(&format!("Region: {}", escape_line(&key.region)))?;
    if !key.by_hand_at.is_empty() {
        let told = counted(key.by_hand_peers, "peer", "peers");
        let at = escape_line(&key.by_hand_at);
        printer.line(&format!("RoutingProvide: {at}, {told}"))?;
    }
    let peers = match key.peers_known {
        true => key.peers.len().to_string(),
        false => "not remembered; they are after the next telling of the region".to_owned(),
    };
    printer.line(&format!("Peers: {peers}"))?;
    for peer in &key.peers {
        printer.line(&format!("  {}", escape_line(peer)))?;
    }
    Ok(())
}

fn or_never(time: &str) -> String {
    match time.is_empty() {
        true => "never".to_owned(),
        false => time.to_owned(),
    }
}
