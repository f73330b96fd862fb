use std::fs;
use std::path::{Path, PathBuf};

use insta::assert_snapshot;
use tempfile::TempDir;

use crate::hub::{COMMIT, Hub, Manner, Model, Reply, Request, hash_of};
use crate::{Ran, fixtures, janus};

const WEIGHTS: &str = "model.safetensors";
const TOKEN: &str = "hf_secretSECRETsecret";

fn tiny() -> Model {
    let mut model = Model::fixture(&fixtures().join("tiny-pro/original"));
    model.files.remove("pytorch_model.bin");
    model
}

/// A hub that serves the tiny model, but for what `other` says.
fn hub(other: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) -> Hub {
    let model = tiny();
    Hub::serve(move |request| other(request).unwrap_or_else(|| model.answer(request)))
}

/// An empty home, and a hub to fill it from.
struct Setup {
    home: TempDir,
    hub: Hub,
}

impl Setup {
    fn new(hub: Hub) -> Self {
        Self { home: tempfile::tempdir().unwrap(), hub }
    }

    fn command(&self, words: &[&str]) -> assert_cmd::Command {
        let mut command = janus(self.home.path());
        command.args(words);
        command.env("HF_HOME", self.home.path()).env("HF_ENDPOINT", &self.hub.url);
        command
    }

    /// `janus pull test/tiny` and more words.
    fn pull(&self, words: &[&str]) -> Ran {
        let mut all = vec!["pull", "test/tiny"];
        if !words.contains(&"--retries") {
            all.extend(["--retries", "1"]);
        }
        all.extend(words);
        Ran::new(self.command(&all))
    }

    fn model(&self) -> PathBuf {
        self.home.path().join("hub/models--test--tiny")
    }

    fn snapshot(&self) -> PathBuf {
        self.model().join("snapshots").join(COMMIT)
    }

    fn blob(&self, name: &str) -> PathBuf {
        self.model().join("blobs").join(hash_of(name, &tiny().files[name]))
    }

    fn partial(&self) -> PathBuf {
        self.blob(WEIGHTS).with_extension("incomplete")
    }

    /// What was printed, without what differs from run to run.
    fn shown(&self, ran: &Ran) -> String {
        let home = self.home.path().to_str().unwrap();
        let host = self.hub.url.strip_prefix("http://").unwrap();
        ran.to_string().replace(home, "HOME").replace(host, "HUB")
    }

    /// Everything is there, and right.
    fn assert_whole(&self, ran: &Ran) {
        assert_eq!((ran.code, ran.stdout.trim()), (0, self.snapshot().to_str().unwrap()), "{ran}");
        for (name, bytes) in tiny().files.iter().filter(|(name, _)| is_needed(name)) {
            assert!(fs::read(self.snapshot().join(name)).unwrap() == *bytes, "{name}");
        }
        assert!(!self.partial().exists());
    }
}

fn is_needed(name: &str) -> bool {
    !name.contains('/') && !name.starts_with('.') && name != "README.md"
}

#[test]
fn a_model_arrives_as_python_would_have_put_it() {
    let setup = Setup::new(hub(|_| None));
    let ran = setup.pull(&[]);
    setup.assert_whole(&ran);
    let main = fs::read_to_string(setup.model().join("refs/main")).unwrap();
    assert_eq!(main, COMMIT);
    for name in fs::read_dir(setup.snapshot()).unwrap().map(|entry| entry.unwrap().file_name()) {
        let name = name.to_str().unwrap();
        assert!(is_needed(name), "{name} is of no use");
        if cfg!(unix) {
            let link = fs::read_link(setup.snapshot().join(name)).unwrap();
            let blob = Path::new("../../blobs").join(setup.blob(name).file_name().unwrap());
            assert_eq!(link, blob);
        }
    }
    assert_eq!(setup.hub.asked_for("README.md").len(), 0);

    // A second time, nothing but the list is asked for.
    let before = setup.hub.log().len();
    let again = setup.pull(&["--json"]);
    assert_eq!(setup.hub.log().len(), before + 1);
    let json = again.json();
    assert_eq!((&json["commit"], &json["received_bytes"]), (&COMMIT.into(), &0.into()));
    assert!(json["files"].as_array().unwrap().iter().all(|file| file["fetched"] == false));
}

#[test]
fn a_pulled_model_answers_to_its_name() {
    let setup = Setup::new(hub(|_| None));
    let ask = ["ask", "-q", "hello", "--model", "test/tiny", "--device", "cpu"];
    let ask = [&ask[..], &["--max-new-tokens", "3"]].concat();
    let before = Ran::new(setup.command(&ask));
    assert_snapshot!("pull_first", setup.shown(&before));
    setup.assert_whole(&setup.pull(&[]));
    let requests = setup.hub.log().len();
    let after = Ran::new(setup.command(&ask));
    assert_eq!(after.code, 0, "{after}");
    let inspected = Ran::new(setup.command(&["inspect", "test/tiny"]));
    assert_eq!(inspected.code, 0, "{inspected}");
    assert_eq!(setup.hub.log().len(), requests, "only pull uses the network");
    // A folder of that name wins.
    fs::create_dir_all(setup.home.path().join("test/tiny")).unwrap();
    let folder = Ran::new(setup.command(&ask));
    assert_eq!(folder.code, 66, "{folder}");
    assert!(folder.stderr.contains("no weights in this folder"), "{folder}");
}

#[test]
fn a_cut_connection_is_resumed() {
    let setup = Setup::new(hub(|request| {
        let first = request.is_for(WEIGHTS) && request.before == 0;
        first.then(|| tiny().answer(request).manner(Manner::Cut(1_000_000)))
    }));
    let ran = setup.pull(&[]);
    setup.assert_whole(&ran);
    assert!(ran.stderr.contains("trying again in 0.5 s (1 of 1)"), "{ran}");
    let asked = setup.hub.asked_for(WEIGHTS);
    assert_eq!(asked.iter().map(Request::from).collect::<Vec<_>>(), [None, Some(1_000_000)]);
}

#[test]
fn a_failed_pull_goes_on_where_it_stopped() {
    let setup = Setup::new(hub(|request| {
        let early = request.is_for(WEIGHTS) && request.before == 0;
        early.then(|| tiny().answer(request).manner(Manner::Cut(2_000_000)))
    }));
    let ran = setup.pull(&["--retries", "0"]);
    assert_snapshot!("pull_cut", setup.shown(&ran));
    assert_eq!(fs::metadata(setup.partial()).unwrap().len(), 2_000_000);
    assert!(!setup.model().join("refs/main").exists(), "half a model has no name");
    let inspected = Ran::new(setup.command(&["inspect", "test/tiny"]));
    assert_eq!(inspected.code, 66, "{inspected}");
    assert!(inspected.stderr.contains("`janus pull test/tiny` downloads it"), "{inspected}");
    setup.assert_whole(&setup.pull(&[]));
    assert_eq!(setup.hub.asked_for(WEIGHTS)[1].from(), Some(2_000_000));
}

/// Waits for something that another process does.
fn until(happened: impl Fn() -> bool) {
    for _ in 0..6000 {
        if happened() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("a minute is over, and nothing has happened");
}

/// Starts a pull whose weights stall, and waits until some have arrived.
#[cfg(unix)]
fn stalled() -> (Setup, std::process::Child) {
    let setup = Setup::new(hub(|request| {
        let first = request.is_for(WEIGHTS) && request.before == 0;
        first.then(|| tiny().answer(request).manner(Manner::Stall(1_500_000)))
    }));
    let child = std::process::Command::new(env!("CARGO_BIN_EXE_janus"))
        .args(["pull", "test/tiny", "--endpoint", &setup.hub.url])
        .env("HF_HOME", setup.home.path())
        .env_remove("HTTP_PROXY")
        .env_remove("http_proxy")
        .env_remove("ALL_PROXY")
        .env_remove("all_proxy")
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    until(|| fs::metadata(setup.partial()).map_or(0, |found| found.len()) >= 1_400_000);
    (setup, child)
}

#[cfg(unix)]
#[test]
fn a_killed_pull_goes_on_where_it_stopped() {
    let (setup, mut child) = stalled();
    child.kill().unwrap();
    child.wait().unwrap();
    let have = fs::metadata(setup.partial()).unwrap().len();
    setup.assert_whole(&setup.pull(&[]));
    assert_eq!(setup.hub.asked_for(WEIGHTS)[1].from(), Some(have as usize));
}

#[cfg(unix)]
#[test]
fn an_interrupted_pull_keeps_what_has_arrived() {
    let (setup, child) = stalled();
    let id = child.id().to_string();
    let told = std::process::Command::new("kill").args(["-INT", &id]).status().unwrap();
    assert!(told.success());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(75), "{stderr}");
    assert!(stderr.ends_with("the same command goes on from what has arrived\n"), "{stderr}");
    assert!(fs::metadata(setup.partial()).unwrap().len() >= 1_400_000);
    setup.assert_whole(&setup.pull(&[]));
}

#[test]
fn a_server_may_ignore_the_range_or_refuse_it() {
    let ignoring = hub(|request| {
        let mut plain = request.clone();
        plain.headers.remove("range");
        request.is_for(WEIGHTS).then(|| tiny().answer(&plain))
    });
    let refusing = hub(|request| {
        (request.is_for(WEIGHTS) && request.from().is_some()).then(|| Reply::new(416, ""))
    });
    let lying = hub(|request| {
        let from_zero = tiny().files[WEIGHTS].clone();
        let lie = Reply::new(206, from_zero).header("Content-Range", "bytes 0-9/10");
        (request.is_for(WEIGHTS) && request.from().is_some()).then_some(lie)
    });
    for hub in [ignoring, refusing, lying] {
        let setup = Setup::new(hub);
        fs::create_dir_all(setup.partial().parent().unwrap()).unwrap();
        fs::write(setup.partial(), &tiny().files[WEIGHTS][..500_000]).unwrap();
        setup.assert_whole(&setup.pull(&[]));
        assert_eq!(setup.hub.asked_for(WEIGHTS)[0].from(), Some(500_000));
    }
}

#[test]
fn a_damaged_rest_is_noticed_and_replaced() {
    let size = tiny().files[WEIGHTS].len();
    for rest in [vec![7; 500_000], vec![7; size], vec![7; size + 1]] {
        let setup = Setup::new(hub(|_| None));
        fs::create_dir_all(setup.partial().parent().unwrap()).unwrap();
        fs::write(setup.partial(), &rest).unwrap();
        setup.assert_whole(&setup.pull(&[]));
    }
}

#[test]
fn wrong_bytes_are_refused_and_not_kept() {
    let setup = Setup::new(hub(|request| {
        let mut reply = tiny().answer(request);
        request.is_for(WEIGHTS).then(|| {
            reply.body[1_000_000] ^= 1;
            reply
        })
    }));
    let ran = setup.pull(&[]);
    assert_eq!(ran.code, 65, "{ran}");
    assert!(ran.stderr.contains("the server sent other bytes than it promised"), "{ran}");
    assert!(!setup.partial().exists() && !setup.blob(WEIGHTS).exists());
    assert!(!setup.snapshot().join(WEIGHTS).exists());
    assert!(!setup.model().join("refs/main").exists());
    // A small file's hash is git's, and is compared as well.
    let setup = Setup::new(hub(|request| {
        let mut reply = tiny().answer(request);
        reply.body.reverse();
        Some(reply).filter(|_| request.is_for("tokenizer_config.json"))
    }));
    let ran = setup.pull(&[]);
    assert_eq!(ran.code, 65, "{ran}");
}

#[test]
fn the_token_goes_to_the_hub_and_nowhere_else() {
    let cdn = Hub::serve(|request| {
        let model = tiny();
        model.answer(&Request { path: request.path.replace("/cdn", ""), ..request.clone() })
    });
    let (cdn_url, model) = (cdn.url.clone(), tiny());
    let setup = Setup::new(Hub::serve(move |request| {
        if request.is_for(WEIGHTS) {
            let to = format!("{cdn_url}/cdn{}", request.path);
            return Reply::new(302, "").header("Location", to);
        }
        if request.is_for("config.json") && !request.path.starts_with("/cached") {
            return Reply::new(307, "").header("Location", format!("/cached{}", request.path));
        }
        let path = request.path.replace("/cached", "");
        model.answer(&Request { path, ..request.clone() })
    }));
    fs::write(setup.home.path().join("token"), format!("{TOKEN}\n")).unwrap();
    let ran = setup.pull(&[]);
    setup.assert_whole(&ran);
    assert!(!ran.to_string().contains(TOKEN), "{ran}");
    let bearer = format!("Bearer {TOKEN}");
    let sent = |hub: &Hub| {
        hub.log().iter().filter(|r| r.headers.get("authorization") == Some(&bearer)).count()
    };
    assert_eq!(sent(&setup.hub), setup.hub.log().len(), "all requests to the hub carry it");
    assert_eq!((sent(&cdn), cdn.log().len()), (0, 1), "the other host never sees it");

    // The variable and the file that is named come before the file of the login.
    let other = setup.home.path().join("other");
    fs::write(&other, "hf_other").unwrap();
    let last = || setup.hub.log().last().unwrap().headers["authorization"].clone();
    let mut command = setup.command(&["pull", "test/tiny"]);
    command.env("HF_TOKEN", "hf_variable");
    Ran::new(command);
    assert_eq!(last(), "Bearer hf_variable");
    setup.pull(&["--token-file", other.to_str().unwrap()]);
    assert_eq!(last(), "Bearer hf_other");
    fs::write(&other, "two words\n").unwrap();
    let ran = setup.pull(&["--token-file", other.to_str().unwrap()]);
    assert_eq!(ran.code, 65, "{ran}");
    assert!(!ran.stderr.contains("two words"), "{ran}");
}

#[test]
fn refusals_say_what_to_do() {
    let refusing = |status: u16, code: &'static str| {
        let hub = hub(move |_| Some(Reply::new(status, "{}").header("X-Error-Code", code)));
        let setup = Setup::new(hub);
        let ran = setup.pull(&[]);
        assert_eq!(setup.hub.log().len(), 1, "asking again is of no use");
        setup.shown(&ran)
    };
    assert_snapshot!("pull_401", refusing(401, "RepoNotFound"));
    assert_snapshot!("pull_403", refusing(403, "GatedRepo"));
    assert_snapshot!("pull_404", refusing(404, "RepoNotFound"));
    assert_snapshot!("pull_revision", refusing(404, "RevisionNotFound"));
    assert_snapshot!("pull_418", refusing(418, ""));
    assert_snapshot!("pull_circle", {
        let setup = Setup::new(hub(|r| Some(Reply::new(302, "").header("Location", &r.path))));
        let ran = setup.pull(&[]);
        setup.shown(&ran)
    });
}

#[test]
fn servers_in_trouble_are_asked_again() {
    let setup = Setup::new(hub(|request| match request.before {
        0 if request.path.starts_with("/api") => Some(Reply::new(500, "")),
        0 if request.is_for("config.json") => Some(Reply::new(429, "").header("Retry-After", "0")),
        0 if request.is_for(WEIGHTS) => Some(Reply::new(503, "")),
        _ => None,
    }));
    setup.assert_whole(&setup.pull(&[]));
    let patient = Setup::new(hub(|_| Some(Reply::new(429, "").header("Retry-After", "86400"))));
    let ran = patient.pull(&[]);
    assert_snapshot!("pull_429", patient.shown(&ran));
    let down = Setup::new(hub(|_| Some(Reply::new(500, ""))));
    assert_snapshot!("pull_500", down.shown(&down.pull(&[])));
}

#[test]
fn nobody_there_is_a_network_failure() {
    let setup = Setup::new(hub(|_| None));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ran = setup.pull(&["--endpoint", &format!("http://{port}"), "--retries", "0"]);
    assert_eq!(ran.code, 69, "{ran}");
    assert!(ran.stderr.contains(&format!("cannot reach {port}")), "{ran}");
    let error = setup.pull(&["--endpoint", "ftp://x", "--json"]).error();
    assert_eq!(error["code"], 2, "{error}");
}

#[test]
fn bodies_without_length_arrive() {
    let setup = Setup::new(hub(|request| Some(tiny().answer(request).manner(Manner::Chunked))));
    setup.assert_whole(&setup.pull(&[]));
}

#[test]
fn listings_that_make_no_sense_are_refused() {
    let endless =
        Setup::new(hub(|_| Some(Reply::new(200, vec![b'['; 1 << 16]).manner(Manner::Endless))));
    assert_snapshot!("pull_endless", endless.shown(&endless.pull(&[])));
    for name in ["../evil", "/etc/evil", "a\\evil", "C:evil", "a/../evil", "evil\u{1b}[2J", ""] {
        let setup = Setup::new(hub(move |_| {
            let mut listing = tiny().listing();
            let hash = "0".repeat(40);
            let evil = serde_json::json!({"rfilename": name, "size": 4, "blobId": hash});
            listing["siblings"].as_array_mut().unwrap().push(evil);
            Some(Reply::new(200, listing.to_string()))
        }));
        let ran = setup.pull(&[]);
        assert_eq!(ran.code, 69, "{name:?}: {ran}");
        assert!(ran.stderr.contains("it lists a file called") && !ran.stderr.contains('\u{1b}'));
        assert_eq!(fs::read_dir(setup.home.path()).unwrap().count(), 0, "{name:?}");
    }
    for (field, value) in [("sha", "../../x"), ("siblings", "none")] {
        let setup = Setup::new(hub(move |_| {
            let mut listing = tiny().listing();
            listing[field] = value.into();
            Some(Reply::new(200, listing.to_string()))
        }));
        let ran = setup.pull(&[]);
        assert_eq!(ran.code, 69, "{ran}");
    }
    let unnamed = Setup::new(hub(|_| {
        let mut listing = tiny().listing();
        for file in listing["siblings"].as_array_mut().unwrap() {
            *file = serde_json::json!({"rfilename": file["rfilename"]});
        }
        Some(Reply::new(200, listing.to_string()))
    }));
    assert_snapshot!("pull_no_hashes", unnamed.shown(&unnamed.pull(&[])));
    let page = Setup::new(hub(|_| Some(Reply::new(200, "<html>Please log in</html>"))));
    assert_snapshot!("pull_html", page.shown(&page.pull(&[])));
}

#[test]
fn what_is_no_model_of_ours_is_refused_before_its_weights() {
    let other = |change: fn(&mut Model)| {
        let mut model = tiny();
        change(&mut model);
        Setup::new(Hub::serve(move |request| model.answer(request)))
    };
    let setup = other(|model| drop(model.files.remove(WEIGHTS)));
    assert_snapshot!("pull_no_weights", setup.shown(&setup.pull(&[])));
    let setup = other(|model| {
        model.files.insert("config.json".into(), b"{\"model_type\": \"bert\"}".to_vec());
    });
    let ran = setup.pull(&[]);
    assert_eq!(ran.code, 78, "{ran}");
    assert_eq!(setup.hub.asked_for(WEIGHTS).len(), 0);
}

#[cfg(unix)]
#[test]
fn too_large_a_model_is_refused_at_once() {
    let setup = Setup::new(hub(|request| {
        let mut listing = tiny().listing();
        for file in listing["siblings"].as_array_mut().unwrap() {
            if file["rfilename"] == WEIGHTS {
                file["lfs"]["size"] = 10u64.pow(17).into();
            }
        }
        request.path.starts_with("/api").then(|| Reply::new(200, listing.to_string()))
    }));
    let ran = setup.pull(&[]);
    assert_eq!(ran.code, 74, "{ran}");
    assert!(ran.stderr.contains("GB are to come, and "), "{ran}");
    assert_eq!(setup.hub.log().len(), 1);
}

#[test]
fn plain_folders_are_filled_and_compared() {
    let setup = Setup::new(hub(|_| None));
    let to = setup.home.path().join("models/tiny");
    let pull = || setup.pull(&["--to", "models/tiny"]);
    let ran = pull();
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "models/tiny\n"), "{ran}");
    let mut names: Vec<_> =
        fs::read_dir(&to).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let expected: Vec<_> = tiny().files.into_keys().filter(|name| is_needed(name)).collect();
    assert_eq!(names, expected);
    assert!(!setup.home.path().join("hub").exists());

    // Same size, other bytes.
    let mut config = fs::read(to.join("config.json")).unwrap();
    config.reverse();
    fs::write(to.join("config.json"), config).unwrap();
    let before = setup.hub.log().len();
    assert_eq!(pull().code, 0);
    assert_eq!(setup.hub.log().len(), before + 2, "the list, and one file");
    assert!(fs::read(to.join("config.json")).unwrap() == tiny().files["config.json"]);
    let whole = Ran::new(setup.command(&["inspect", "models/tiny"]));
    assert_eq!(whole.code, 0, "{whole}");
    let offline = |to: &str| setup.pull(&["--to", to, "--offline"]);
    assert_eq!((offline("models/tiny").code, offline("models/none").code), (0, 66));
    let file = setup.pull(&["--to", "models/tiny/config.json"]);
    assert_eq!(file.code, 73, "{file}");
}

#[test]
fn pickled_weights_in_parts_are_taken_where_there_are_no_others() {
    let folder = fixtures().join("tiny-odd/original-bin");
    let model = Model::fixture(&folder);
    let setup = Setup::new(Hub::serve(move |request| model.answer(request)));
    let ran = setup.pull(&[]);
    assert_eq!(ran.code, 0, "{ran}");
    assert!(ran.stderr.contains("janus reads them without running anything inside"), "{ran}");
    let shard = "pytorch_model-00002-of-00002.bin";
    assert!(
        fs::read(setup.snapshot().join(shard)).unwrap() == fs::read(folder.join(shard)).unwrap()
    );
    // Where both are published, the safe format is taken.
    let setup = Setup::new({
        let mut model = tiny();
        model.files.insert("pytorch_model.bin".into(), vec![0; 10]);
        Hub::serve(move |request| model.answer(request))
    });
    setup.assert_whole(&setup.pull(&[]));
    assert_eq!(setup.hub.asked_for("pytorch_model.bin").len(), 0);
}

#[test]
fn offline_only_looks() {
    let setup = Setup::new(hub(|_| None));
    assert_snapshot!("pull_offline_absent", setup.shown(&setup.pull(&["--offline"])));
    setup.assert_whole(&setup.pull(&[]));
    let requests = setup.hub.log().len();
    setup.assert_whole(&setup.pull(&["--offline", "--verify"]));
    let mut command = setup.command(&["pull", "test/tiny", "--revision", COMMIT]);
    command.env("HF_HUB_OFFLINE", "1");
    setup.assert_whole(&Ran::new(command));

    // One bit.
    let blob = setup.blob(WEIGHTS);
    let mut bytes = fs::read(&blob).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&blob, &bytes).unwrap();
    assert_eq!(setup.pull(&["--offline"]).code, 0, "headers do not tell");
    assert_snapshot!("pull_offline_damaged", setup.shown(&setup.pull(&["--offline", "--verify"])));
    assert_eq!(setup.hub.log().len(), requests);
    let repaired = setup.pull(&["--verify"]);
    assert!(repaired.stderr.contains("model.safetensors: damaged here"), "{repaired}");
    setup.assert_whole(&repaired);

    fs::remove_file(setup.blob(WEIGHTS)).unwrap();
    let ran = setup.pull(&["--offline"]);
    assert_eq!(ran.code, 66, "{ran}");
}

#[test]
fn two_pulls_at_once_do_not_meet() {
    let setup = Setup::new(hub(|_| None));
    let name = format!("{}.lock", hash_of(WEIGHTS, &tiny().files[WEIGHTS]));
    let path = setup.home.path().join("hub/.locks/models--test--tiny").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let lock = fs::File::create(path).unwrap();
    lock.lock().unwrap();
    let command = setup.command(&["pull", "test/tiny"]);
    let waiting = std::thread::spawn(move || Ran::new(command));
    until(|| setup.snapshot().join("tokenizer.json").exists());
    // The other process finishes.
    fs::write(setup.blob(WEIGHTS), &tiny().files[WEIGHTS]).unwrap();
    lock.unlock().unwrap();
    setup.assert_whole(&waiting.join().unwrap());
    assert_eq!(setup.hub.asked_for(WEIGHTS).len(), 0);

    let pulls: Vec<_> = {
        let setup = Setup::new(hub(|_| None));
        let commands = [(); 3].map(|()| setup.command(&["pull", "test/tiny"]));
        let threads = commands.map(|command| std::thread::spawn(move || Ran::new(command)));
        threads.into_iter().map(|thread| thread.join().unwrap().code).collect()
    };
    assert_eq!(pulls, [0, 0, 0]);
}

#[test]
fn names_that_are_none_are_refused() {
    let setup = Setup::new(hub(|_| None));
    let ran = Ran::new(setup.command(&["pull", "Janus-Pro-3B"]));
    assert_snapshot!("pull_name", ran);
    let ran = setup.pull(&["--revision", "../main"]);
    assert_eq!(ran.code, 2, "{ran}");
    assert_eq!(setup.hub.log().len(), 0);
}

#[cfg(unix)]
#[test]
fn a_full_disk_keeps_what_has_arrived() {
    let setup = Setup::new(hub(|_| None));
    // The unit differs between shells: 512 or 1024 bytes.
    let script = "trap '' XFSZ; ulimit -f 2000; exec \"$JANUS\" pull test/tiny";
    let mut command = assert_cmd::Command::new("sh");
    command.args(["-c", script]).current_dir(setup.home.path());
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(name);
    }
    command.env("JANUS", env!("CARGO_BIN_EXE_janus")).env("NO_COLOR", "1");
    command.env("HF_HOME", setup.home.path()).env("HF_ENDPOINT", &setup.hub.url);
    let ran = Ran::new(command);
    let hash = setup.blob(WEIGHTS).file_name().unwrap().to_str().unwrap().to_owned();
    assert_snapshot!("pull_disk_full", setup.shown(&ran).replace(&hash, "HASH"));
    assert!(fs::metadata(setup.partial()).unwrap().len() >= 1_000_000);
    setup.assert_whole(&setup.pull(&[]));
    assert!(setup.hub.asked_for(WEIGHTS)[1].from() >= Some(1_000_000));
}
