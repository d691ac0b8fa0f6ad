//! `id`, `swarm`, `routing`, `stats`, `bitswap`: this node among others.

use super::{Shell, sources};
use crate::args::{
    BitswapCommand, BitswapStatArgs, IdArgs, PingArgs, RoutingCommand, StatsCommand,
    SwarmAddrsCommand, SwarmCommand, SwarmFiltersCommand, SwarmPeeringCommand,
};
use crate::exit::Failure;
use crate::output::{Printer, escape_json, escape_line, human_bytes, note};
use crate::rpc::entries::LocalUpload;
use crate::rpc::id::IdAnswer;
use crate::rpc::peering::{Peered, PeeringAnswer};
use crate::rpc::ping::Pong;
use crate::rpc::routing::{FINAL_PEER, PROVIDER, QueryEvent};
use crate::rpc::stats::{BandwidthAnswer, BitswapAnswer, Keys, LedgerAnswer};
use crate::rpc::swarm::{AddrsAnswer, AutonatAnswer, OUTBOUND, PeersAnswer, Strings};
use data_encoding::BASE64;
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

/// `id`.
pub async fn id(shell: &mut Shell, arguments: IdArgs) -> Result<(), Failure> {
    let question = shell.question("id").maybe("arg", arguments.peer);
    let format = arguments.format;
    shell
        .print_each(question, |answer: IdAnswer, printer| match &format {
            Some(format) => {
                let mut text = formatted(format, &answer);
                if !text.ends_with('\n') {
                    text.push('\n');
                }
                Ok(printer.bytes(text.as_bytes())?)
            }
            None => Ok(printer.line(&pretty(&answer))?),
        })
        .await
}

fn formatted(format: &str, answer: &IdAnswer) -> String {
    let lines = |texts: &[String]| {
        let escaped: Vec<_> = texts.iter().map(|text| escape_line(text)).collect();
        escaped.join("\n")
    };
    format
        .replace("\\n", "\n")
        .replace("\\t", "\t")
        .replace("<id>", &answer.id)
        .replace("<aver>", &escape_line(&answer.agent_version))
        .replace("<pubkey>", &answer.public_key)
        .replace("<addrs>", &lines(&answer.addresses))
        .replace("<protocols>", &lines(&answer.protocols))
}

/// JSON as Kubo prints it for people: indented with tabs.
fn pretty<T: Serialize>(value: &T) -> String {
    let mut bytes = Vec::new();
    let formatter = PrettyFormatter::with_indent(b"\t");
    let mut serializer = Serializer::with_formatter(&mut bytes, formatter);
    match value.serialize(&mut serializer) {
        Ok(()) => escape_json(
            String::from_utf8_lossy(&bytes)
                .into_owned()
                .replace('\t', TAB),
        )
        .replace(TAB, "\t"),
        Err(error) => error.to_string(),
    }
}

/// Stands for the tabs of the layout while what is in the strings is escaped.
const TAB: &str = "        ";

/// `swarm`.
pub async fn swarm(shell: &mut Shell, command: SwarmCommand) -> Result<(), Failure> {
    match command {
        SwarmCommand::Peers {
            verbose,
            latency,
            streams,
            direction,
            identify,
        } => {
            let question = shell
                .question("swarm/peers")
                .maybe("verbose", verbose.then_some(true))
                .maybe("latency", latency.then_some(true))
                .maybe("streams", streams.then_some(true))
                .maybe("direction", direction.then_some(true))
                .maybe("identify", identify.then_some(true));
            shell
                .print_each(question, |answer: PeersAnswer, printer| {
                    print_peers(&answer, printer)
                })
                .await
        }
        SwarmCommand::Connect { addresses } => {
            let question = shell.question("swarm/connect").args(addresses);
            shell.print_each(question, print_strings).await
        }
        SwarmCommand::Disconnect { addresses } => {
            let question = shell.question("swarm/disconnect").args(addresses);
            shell.print_each(question, print_strings).await
        }
        SwarmCommand::Filters(arguments) => {
            let question = match arguments.command {
                Some(SwarmFiltersCommand::Add { ranges }) => {
                    shell.question("swarm/filters/add").args(ranges)
                }
                Some(SwarmFiltersCommand::Rm { ranges }) => {
                    shell.question("swarm/filters/rm").args(ranges)
                }
                Some(SwarmFiltersCommand::Ls) | None => shell.question("swarm/filters"),
            };
            shell.print_each(question, print_strings).await
        }
        SwarmCommand::Peering(command) => peering(shell, command).await,
        SwarmCommand::Addrs(arguments) => match arguments.command {
            Some(SwarmAddrsCommand::Local { id }) => {
                let question = shell
                    .question("swarm/addrs/local")
                    .maybe("id", id.then_some(true));
                shell.print_each(question, print_strings).await
            }
            Some(SwarmAddrsCommand::Listen) => {
                let question = shell.question("swarm/addrs/listen");
                shell.print_each(question, print_strings).await
            }
            Some(SwarmAddrsCommand::Autonat) => {
                let question = shell.question("swarm/addrs/autonat");
                shell.print_each(question, print_reach).await
            }
            None => {
                let question = shell.question("swarm/addrs");
                shell
                    .print_each(question, |answer: AddrsAnswer, printer| {
                        for (peer, addresses) in answer.addrs {
                            printer.line(&format!("{peer} ({})", addresses.len()))?;
                            for address in addresses {
                                printer.line(&format!("\t{}", escape_line(&address)))?;
                            }
                        }
                        Ok(())
                    })
                    .await
            }
        },
    }
}

async fn peering(shell: &mut Shell, command: SwarmPeeringCommand) -> Result<(), Failure> {
    let (question, verb) = match command {
        SwarmPeeringCommand::Add { addresses } => {
            (shell.question("swarm/peering/add").args(addresses), "add")
        }
        SwarmPeeringCommand::Rm { peers } => {
            (shell.question("swarm/peering/rm").args(peers), "remove")
        }
        SwarmPeeringCommand::Ls => {
            let question = shell.question("swarm/peering/ls");
            return shell.print_each(question, print_peering).await;
        }
    };
    shell
        .print_each(question, |done: Peered, printer| {
            printer.line(&escape_line(&format!("{verb} {} {}", done.id, done.status)))?;
            if !done.note.is_empty() {
                note(&escape_line(&done.note));
            }
            Ok(())
        })
        .await
}

fn print_peering(answer: PeeringAnswer, printer: &mut Printer) -> Result<(), Failure> {
    for row in answer.peers {
        printer.line(&escape_line(&row.id))?;
        for address in row.addrs {
            printer.line(&format!("\t{}", escape_line(&address)))?;
        }
    }
    Ok(())
}

/// `ping`.
pub async fn ping(shell: &mut Shell, arguments: PingArgs) -> Result<(), Failure> {
    let question = shell
        .question("ping")
        .arg(arguments.peer)
        .maybe("count", arguments.count);
    shell
        .print_each(question, |pong: Pong, printer| {
            Ok(printer.line(&pong_line(&pong))?)
        })
        .await
}

fn pong_line(pong: &Pong) -> String {
    match (pong.text.as_str(), pong.success) {
        ("", true) => format!("Pong received: time={:.2} ms", pong.time as f64 / 1e6),
        ("", false) => "Pong failed".to_owned(),
        (text, _) => escape_line(text).into_owned(),
    }
}

fn print_strings(answer: Strings, printer: &mut Printer) -> Result<(), Failure> {
    for text in answer.strings {
        printer.line(&escape_line(&text))?;
    }
    Ok(())
}

fn print_reach(answer: AutonatAnswer, printer: &mut Printer) -> Result<(), Failure> {
    printer.line(&format!(
        "Reachability: {}",
        escape_line(&answer.reachability)
    ))?;
    for (what, entries) in [
        ("Reachable", answer.reachable),
        ("Unreachable", answer.unreachable),
        ("Unknown", answer.unknown),
        ("Relays", answer.relays),
    ] {
        if !entries.is_empty() {
            printer.line(&format!("{what}:"))?;
        }
        for entry in entries {
            printer.line(&format!("\t{}", escape_line(&entry)))?;
        }
    }
    Ok(())
}

fn print_peers(answer: &PeersAnswer, printer: &mut Printer) -> Result<(), Failure> {
    for row in &answer.peers {
        let mut line = format!("{}/p2p/{}", row.addr, row.peer);
        if !row.latency.is_empty() {
            line = format!("{line} {}", row.latency);
        }
        if let Some(direction) = row.direction {
            let direction = if direction == OUTBOUND {
                "outbound"
            } else {
                "inbound"
            };
            line = format!("{line} {direction}");
        }
        printer.line(&escape_line(&line))?;
        if let Some(identify) = &row.identify {
            printer.line(&format!(
                "  agent: {}",
                escape_line(&identify.agent_version)
            ))?;
            for protocol in &identify.protocols {
                printer.line(&format!("  {}", escape_line(protocol)))?;
            }
        }
    }
    Ok(())
}

/// `routing`.
pub async fn routing(shell: &mut Shell, command: RoutingCommand) -> Result<(), Failure> {
    let question = match command {
        RoutingCommand::Findprovs {
            cids,
            num_providers,
        } => shell
            .question("routing/findprovs")
            .args(cids)
            .maybe("num-providers", num_providers),
        RoutingCommand::Provide { cids } => shell.question("routing/provide").args(cids),
        RoutingCommand::Findpeer { peers } => shell.question("routing/findpeer").args(peers),
        RoutingCommand::Get { keys } => return get_values(shell, keys).await,
        RoutingCommand::Put { key, file } => {
            if file.is_dir() {
                return Err(Failure::runtime(format!(
                    "{} is a directory; the value is what one file holds, or standard input for -",
                    file.display()
                )));
            }
            let upload = LocalUpload {
                sources: sources(vec![file], None),
                ..LocalUpload::default()
            };
            shell.question("routing/put").arg(key).upload(upload)
        }
    };
    shell
        .print_each(question, |event: QueryEvent, printer| {
            match event.r#type {
                PROVIDER => {
                    for peer in event.responses {
                        printer.line(&peer.id)?;
                    }
                }
                FINAL_PEER => {
                    for address in event.responses.into_iter().flat_map(|peer| peer.addrs) {
                        printer.line(&escape_line(&address))?;
                    }
                }
                _ => {}
            }
            if !event.note.is_empty() {
                note(&escape_line(&event.note));
            }
            Ok(())
        })
        .await
}

async fn get_values(shell: &mut Shell, keys: Vec<String>) -> Result<(), Failure> {
    let question = shell.question("routing/get").args(keys);
    shell
        .print_each(question, |event: QueryEvent, printer| {
            // Whoever answers is this program.
            let value = BASE64.decode(event.extra.as_bytes()).unwrap_or_default();
            Ok(printer.bytes(&value)?)
        })
        .await
}

/// `stats`.
pub async fn stats(shell: &mut Shell, command: StatsCommand) -> Result<(), Failure> {
    match command {
        StatsCommand::Bw => {
            let question = shell.question("stats/bw");
            shell
                .print_each(question, |answer: BandwidthAnswer, printer| {
                    printer.line("Bandwidth")?;
                    printer.line(&format!("TotalIn: {}", human_bytes(answer.total_in)))?;
                    printer.line(&format!("TotalOut: {}", human_bytes(answer.total_out)))?;
                    printer.line(&format!("RateIn: {}/s", human_bytes(whole(answer.rate_in))))?;
                    Ok(printer.line(&format!(
                        "RateOut: {}/s",
                        human_bytes(whole(answer.rate_out))
                    ))?)
                })
                .await
        }
        StatsCommand::Bitswap(arguments) => bitswap_stat(shell, arguments).await,
        StatsCommand::Repo(arguments) => super::repo::stat(shell, arguments).await,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and a rate is never negative"
)]
fn whole(rate: f64) -> u64 {
    rate as u64
}

/// `bitswap`.
pub async fn bitswap(shell: &mut Shell, command: BitswapCommand) -> Result<(), Failure> {
    match command {
        BitswapCommand::Stat(arguments) => bitswap_stat(shell, arguments).await,
        BitswapCommand::Ledger { peer } => {
            let question = shell.question("bitswap/ledger").arg(peer);
            let mut nothing = false;
            shell
                .print_each(question, |answer: LedgerAnswer, printer| {
                    printer.line(&format!("Ledger for {}", escape_line(&answer.peer)))?;
                    printer.line(&format!("Debt ratio:\t{:.6}", answer.value))?;
                    printer.line(&format!("Exchanges:\t{}", answer.exchanged))?;
                    printer.line(&format!("Bytes sent:\t{}", answer.sent))?;
                    printer.line(&format!("Bytes received:\t{}", answer.recv))?;
                    printer.line("")?;
                    if answer.exchanged == 0 && answer.sent == 0 && answer.recv == 0 {
                        nothing = true;
                    }
                    Ok(())
                })
                .await?;
            if nothing {
                note("No block was exchanged with this peer, or it is remembered no more.");
            }
            Ok(())
        }
        BitswapCommand::Wantlist { peer } => {
            let question = shell.question("bitswap/wantlist").maybe("peer", peer);
            shell
                .print_each(question, |answer: Keys, printer| {
                    for key in answer.keys {
                        printer.line(&key.cid)?;
                    }
                    Ok(())
                })
                .await
        }
    }
}

async fn bitswap_stat(shell: &mut Shell, arguments: BitswapStatArgs) -> Result<(), Failure> {
    let question = shell.question("bitswap/stat");
    shell
        .print_each(question, |answer: BitswapAnswer, printer| {
            let bytes = |bytes: u64| {
                if arguments.human {
                    human_bytes(bytes)
                } else {
                    bytes.to_string()
                }
            };
            printer.line("bitswap status")?;
            printer.line(&format!("\tblocks received: {}", answer.blocks_received))?;
            printer.line(&format!("\tblocks sent: {}", answer.blocks_sent))?;
            printer.line(&format!("\tdata received: {}", bytes(answer.data_received)))?;
            printer.line(&format!("\tdata sent: {}", bytes(answer.data_sent)))?;
            printer.line(&format!(
                "\tdup blocks received: {}",
                answer.dup_blks_received
            ))?;
            printer.line(&format!(
                "\tdup data received: {}",
                bytes(answer.dup_data_received)
            ))?;
            printer.line(&format!("\twantlist [{} keys]", answer.wantlist.len()))?;
            for key in &answer.wantlist {
                printer.line(&format!("\t\t{}", key.cid))?;
            }
            printer.line(&format!("\tpartners [{}]", answer.peers.len()))?;
            if arguments.verbose {
                for peer in &answer.peers {
                    printer.line(&format!("\t\t{peer}"))?;
                }
            }
            Ok(())
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_printed_as_kubo_prints_it() {
        let answer = IdAnswer {
            id: "12D3".to_owned(),
            agent_version: "evil\u{202e}\t".to_owned(),
            ..IdAnswer::default()
        };
        let text = pretty(&answer);
        assert!(text.starts_with("{\n\t\"ID\": \"12D3\",\n"), "{text}");
        assert!(text.contains("evil\\u202e\\t"), "{text}");
    }

    #[test]
    fn a_pong_is_printed_as_kubo_prints_it() {
        let mut pong = Pong {
            success: true,
            time: 1_234_567,
            text: String::new(),
        };
        assert_eq!(pong_line(&pong), "Pong received: time=1.23 ms");
        pong.success = false;
        assert_eq!(pong_line(&pong), "Pong failed");
        pong.text = "PING x.".to_owned();
        assert_eq!(pong_line(&pong), "PING x.");
    }

    #[test]
    fn a_format_may_hold_line_ends() {
        let answer = IdAnswer {
            id: "12D3".to_owned(),
            ..IdAnswer::default()
        };
        assert_eq!(formatted("<id>\\n", &answer), "12D3\n");
    }
}
