//! The steps that replace one member.

use super::{Kind, LOCK, MemberChange, OnHost, SEND, Site, Step, client_steps, step};
use crate::{
    plan::Plan,
    replace::Replace,
    service::unit,
    shell::{quote, quote_path},
    spec::Service,
};

pub(super) fn steps(plan: &Plan, replace: &Replace) -> Vec<Step> {
    let hosts = plan.hosts();
    let sites: Vec<_> =
        hosts.iter().enumerate().map(|(number, host)| Site::new(number, plan, host)).collect();
    let named = |label: &str| sites.iter().find(|site| site.host.label == label);
    let lost = named(&replace.member).expect("the plan was made for a host of its file");
    let asked = replace.through.first().and_then(|label| named(label)).unwrap_or(lost);
    let name = &replace.member;
    let on_lost = |id: &str, title: String, kind, part| step(id, &title, kind, [part].into_iter());
    let change = |change, title: String, by_hand: String| {
        let part = OnHost {
            by_hand: Some(by_hand),
            ..asked.on_host(String::new(), String::new(), String::new())
        };
        step(change_id(change), &title, Kind::Member(change), [part].into_iter())
    };
    let etcdctl = asked.etcdctl();
    let urls = lost.host.member.as_ref().map(|member| member.peer_urls.join(","));
    let as_learner = if replace.learner { " --learner" } else { "" };

    let mut steps = vec![
        step(LOCK, "Claim the hosts for this run", Kind::Script, sites.iter().map(Site::lock)),
        on_lost(
            "stop-etcd",
            format!("Stop what is left of etcd on {name}"),
            Kind::Script,
            lost.stop_etcd(),
        ),
    ];
    if let Some(old) = replace.old {
        steps.push(change(
            MemberChange::Remove,
            format!("Remove the lost {name} from the cluster"),
            format!("{etcdctl} member remove {old:x}"),
        ));
    }
    steps.push(change(
        MemberChange::Add,
        format!(
            "Add {name} to the cluster{}",
            if replace.learner { ", without a vote yet" } else { "" }
        ),
        format!(
            "{etcdctl} member add {}{as_learner} --peer-urls={}",
            quote(name),
            quote(&urls.unwrap_or_default())
        ),
    ));
    steps.extend([
        on_lost(
            SEND,
            format!("Put beside {name}'s old data a log that says which cluster it joins"),
            Kind::Send,
            lost.join(),
        ),
        on_lost("set-aside", format!("Set {name}'s old data aside"), Kind::Script, lost.set_aside()),
        on_lost("swap-in", "Put the new log in place".to_owned(), Kind::Script, lost.swap_in()),
        on_lost("start-etcd", format!("Start {name}"), Kind::Script, lost.start_joining()),
        change(
            MemberChange::Promote,
            format!("Wait until {name} has caught up{}", if replace.learner { ", and give it its vote" } else { "" }),
            match replace.learner {
                true => format!("{etcdctl} member list\n{etcdctl} member promote ID   # again, until it has caught up"),
                false => format!("{etcdctl} endpoint status --cluster"),
            },
        ),
        step(
            "verify",
            "Compare all members with each other",
            Kind::Verify,
            sites.iter().filter(|site| site.host.member.is_some()).map(Site::verify),
        ),
    ]);
    if let Some(settled) = lost.settle() {
        let title = format!("Give {name}'s unit its own time limit again");
        steps.push(on_lost("settle", title, Kind::Script, settled));
    }
    // What uses etcd there may have given up; what runs is left as it is, also by a rollback.
    for mut step in client_steps(&[lost]) {
        step.hosts.iter_mut().for_each(|part| part.undo.clear());
        if !step.id.starts_with("restart-") {
            steps.push(step);
        }
    }
    steps
}

fn change_id(change: MemberChange) -> &'static str {
    match change {
        MemberChange::Remove => "remove-member",
        MemberChange::Add => "add-member",
        MemberChange::Promote => "promote",
    }
}

impl Site<'_> {
    /// etcd tells systemd that it is up when it has caught up. With a large database that takes longer than a unit may take to start,
    /// after which systemd would kill it, and all began anew.
    fn start_joining(&self) -> OnHost {
        let start = self.start_etcd();
        let Some(drop_in) = self.patience() else { return start };
        let run = format!(
            "mkdir -p \"$(dirname {drop_in})\"\n\
             printf '# made by lifeboat recover, which removes it\\n[Service]\\nTimeoutStartSec=infinity\\n' >{drop_in}\n{}",
            start.run
        );
        OnHost { run, undo: format!("{}\nrm -f {drop_in}", start.undo), ..start }
    }

    fn settle(&self) -> Option<OnHost> {
        let drop_in = self.patience()?;
        let run = format!("rm -f {drop_in}\nsystemctl daemon-reload");
        Some(self.on_host(format!("[ ! -e {drop_in} ]"), run, String::new()))
    }

    /// A drop-in that is gone after a reboot.
    fn patience(&self) -> Option<String> {
        let Service::Systemd(name) = &self.host.service else { return None };
        Some(quote(&format!("/run/systemd/system/{}.d/lifeboat-replace.conf", unit(name))))
    }

    /// The first segment of its log alone; etcd makes the rest.
    fn join(&self) -> OnHost {
        let sent = self.send();
        let snap = self.places.new_snap();
        let run = format!("mkdir -p {}\n{}", quote_path(&snap), sent.run);
        let by_hand = format!(
            "# by hand, in place of this step and those up to the start: rename the old directory, and start etcd once as it is started\n\
             # otherwise, but with --initial-cluster-state=existing --initial-cluster=NAME=PEER-URL,… (as `member add` prints them)\n\
             # lifeboat puts a log of a few hundred bytes into {}, and then:\n{run}",
            quote_path(&self.places.new_wal())
        );
        OnHost { run, by_hand: Some(by_hand), ..sent }
    }
}
