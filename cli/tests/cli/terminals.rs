//! `holdfast lock` on a terminal: whose it is, what its keys do, and that nobody runs on without the lock.
//!
//! A pseudo-terminal stands in for it, and `setsid` (util-linux) makes it ours. Where there is no `setsid`, these tests say so
//! and do nothing.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{LIMIT, TestCell, process, wait_until};

/// A program on a terminal.
struct OnTerminal {
    child: Child,
    keyboard: File,
    screen: Receiver<u8>,
    seen: String,
}

impl OnTerminal {
    /// Has a shell without job control become `script`, as the leader of a terminal's session. `None` if there is no `setsid`.
    fn start(cell: &TestCell, script: &str) -> Option<Self> {
        if Command::new("setsid").arg("--version").output().is_err() {
            println!("skipped: no setsid (util-linux)");
            return None;
        }
        let pty = openpty(None, None).unwrap();
        let stream = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
        let holdfast = env!("CARGO_BIN_EXE_holdfast");
        let script = script.replace("holdfast", holdfast);
        let mut command = Command::new("setsid");
        command.args(["-c", "sh", "-c", &script]).env("HOLDFAST_ADDRESSES", &cell.addresses);
        command.stdin(stream(&pty.slave)).stdout(stream(&pty.slave)).stderr(stream(&pty.slave));
        let child = command.spawn().unwrap();
        let keyboard = File::from(pty.master);
        let mut reader = keyboard.try_clone().unwrap();
        let (sender, screen) = channel();
        std::thread::spawn(move || {
            let mut byte = [0];
            // Fails once nobody has the terminal open any more.
            while let Ok(1) = reader.read(&mut byte) {
                if sender.send(byte[0]).is_err() {
                    return;
                }
            }
        });
        Some(Self { child, keyboard, screen, seen: String::new() })
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until this is on the screen.
    fn see(&mut self, text: &str) {
        let deadline = Instant::now() + LIMIT;
        while !self.seen.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(byte) => self.seen.push(char::from(byte)),
                Err(_) => panic!("{text:?} is not on the screen: {:?}", self.seen),
            }
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    fn end(mut self) -> Option<i32> {
        let ended = self.child.wait().unwrap().code();
        // The screen may have more, which nobody wants.
        drop(self.screen);
        ended
    }
}

/// One letter: what a process does.
fn state_of(pid: Pid) -> Option<char> {
    process(pid.as_raw()).map(|(state, _)| state)
}

#[test]
fn a_command_prompts_on_the_terminal_also_with_other_input() {
    let cell = TestCell::start();
    let ask = r#"printf "who? " >/dev/tty; read who </dev/tty; echo "it is $who""#;
    let script = format!("exec holdfast lock /l -- sh -c '{ask}' </dev/null");
    let Some(mut terminal) = OnTerminal::start(&cell, &script) else { return };
    terminal.see("who? ");
    terminal.press("me\n");
    terminal.see("it is me");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn who_is_not_alone_in_the_foreground_gets_the_terminal_when_it_asks() {
    let cell = TestCell::start();
    let ask = r#"printf "who? " >/dev/tty; read who </dev/tty; echo "it is $who""#;
    let script = format!("holdfast lock /l -- sh -c '{ask}' </dev/null | cat; echo done");
    let Some(mut terminal) = OnTerminal::start(&cell, &script) else { return };
    terminal.see("who? ");
    terminal.press("me\n");
    terminal.see("it is me");
    terminal.see("done");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn an_interrupt_from_the_keyboard_reaches_the_command() {
    let cell = TestCell::start();
    let script =
        "exec holdfast lock /l -- sh -c 'trap \"exit 9\" INT; echo running; while :; do sleep 0.02; done'";
    let Some(mut terminal) = OnTerminal::start(&cell, script) else { return };
    terminal.see("running");
    terminal.press("\u{3}");
    assert_eq!(terminal.end(), Some(9));
}

#[test]
fn what_is_stopped_from_the_keyboard_stops_whole_and_goes_on_whole() {
    let cell = TestCell::start();
    let script = "exec holdfast lock /l -- sh -c 'echo its number is $$.; read line; echo heard $line'";
    let Some(mut terminal) = OnTerminal::start(&cell, script) else { return };
    terminal.see(".\r\n");
    let number = terminal.seen.split("number is ").nth(1).unwrap().split('.').next().unwrap();
    let command = Pid::from_raw(number.parse().unwrap());
    terminal.press("\u{1a}");
    wait_until("both are stopped", || {
        [command, terminal.pid()].iter().all(|pid| state_of(*pid) == Some('T'))
    });
    kill(terminal.pid(), Signal::SIGCONT).unwrap();
    wait_until("both go on", || [command, terminal.pid()].iter().all(|pid| state_of(*pid) != Some('T')));
    terminal.press("this\n");
    terminal.see("heard this");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn a_lock_that_is_lost_stops_what_the_command_has_started() {
    let cell = TestCell::start();
    let options = "--lease 1 --lock-delay 3 --kill-after 1";
    let script = format!(
        "exec holdfast lock {options} /l -- sh -c 'sh -c \"echo its number is \\$\\$.; sleep 60; true\"; true'"
    );
    let Some(mut terminal) = OnTerminal::start(&cell, &script) else { return };
    terminal.see(".\r\n");
    let number = terminal.seen.split("number is ").nth(1).unwrap().split('.').next().unwrap();
    let started = Pid::from_raw(number.parse().unwrap());
    let sessions = cell.json(&["session", "ls"]);
    let holder = sessions["sessions"].as_array().unwrap().iter().find(|session| session["locks_held"] == 1);
    cell.run(&["session", "kill", &holder.unwrap()["session"].to_string()]).assert_done();
    terminal.see("the command was stopped");
    assert!(matches!(state_of(started), None | Some('Z')), "it runs on: {:?}", state_of(started));
    assert_eq!(terminal.end(), Some(118));
}
