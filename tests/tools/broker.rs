//! A real RabbitMQ on loopback, and a cable to it that can be pulled.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};

use super::{free_port, wait::eventually};

/// Programs without Debian's wrappers, which change the user and write to /var/log.
const PROGRAMS: &str = "/usr/lib/rabbitmq/bin";

pub struct RabbitMq {
    server: Child,
    port: u16,
    management_port: u16,
    epmd_port: u16,
    folder: tempfile::TempDir,
}

impl RabbitMq {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (port, dist_port, epmd_port, management_port) = (free_port(), free_port(), free_port(), free_port());
        let program = PathBuf::from(PROGRAMS).join("rabbitmq-server");
        assert!(program.exists(), "no {}: apt-get install rabbitmq-server", program.display());
        let config = folder.path().join("rabbitmq.conf");
        let settings = format!(
            "listeners.tcp.1 = 127.0.0.1:{port}\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management_port}\n\
             frame_max = 16384\nlog.console = true\nlog.file = false\n"
        );
        std::fs::write(&config, settings).expect("writes");
        std::fs::write(folder.path().join("enabled_plugins"), "[rabbitmq_management].").expect("writes");
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        let mut server = Command::new(program);
        identified(&mut server, folder.path(), port, epmd_port)
            .env("RABBITMQ_CONFIG_FILE", &config)
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.path().join("enabled_plugins"))
            .env("RABBITMQ_MNESIA_BASE", folder.path().join("mnesia"))
            .env("RABBITMQ_LOG_BASE", folder.path().join("logs"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_DIST_PORT", dist_port.to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .process_group(0);
        let server = server.spawn().expect("RabbitMQ starts");
        let broker = Self { server, port, management_port, epmd_port, folder };
        eventually("RabbitMQ listens", Duration::from_secs(60), || broker.log(), || broker.speaks());
        broker
    }

    /// The port is open long before the server answers.
    fn speaks(&self) -> Option<()> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        stream.write_all(b"AMQP\x00\x00\x09\x01").ok()?;
        stream.read_exact(&mut [0; 8]).ok()
    }

    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Short of memory: it takes no more messages.
    pub fn alarm(&self) {
        self.control(&["set_vm_memory_high_watermark", "0.000001"]);
        eventually(
            "the alarm",
            Duration::from_secs(30),
            || self.log(),
            || self.log().contains("memory resource limit alarm set").then_some(()),
        );
    }

    /// It has memory enough again.
    pub fn calm(&self) {
        self.control(&["set_vm_memory_high_watermark", "0.6"]);
    }

    fn control(&self, arguments: &[&str]) {
        let mut program = Command::new(PathBuf::from(PROGRAMS).join("rabbitmqctl"));
        let program = identified(&mut program, self.folder.path(), self.port, self.epmd_port);
        let done = program.args(arguments).output().expect("rabbitmqctl starts");
        assert!(done.status.success(), "rabbitmqctl {arguments:?}: {done:?}");
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Address of the management API; `guest`, as for everything.
    pub fn management(&self) -> String {
        format!("http://127.0.0.1:{}", self.management_port)
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.server.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.server.wait();
        // Its name server is a daemon of its own; this one is ours alone, by its port. It does not go while it knows of a
        // node, and it takes a moment to see that there is none any more.
        for _ in 0..20 {
            let said = Command::new("epmd")
                .args(["-port", &self.epmd_port.to_string(), "-kill"])
                .env("ERL_EPMD_ADDRESS", "127.0.0.1")
                .output();
            if said.is_ok_and(|said| !String::from_utf8_lossy(&said.stdout).contains("living nodes")) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The environment by which its programs find each other and nobody else's.
fn identified<'a>(program: &'a mut Command, folder: &Path, port: u16, epmd_port: u16) -> &'a mut Command {
    program
        .env("HOME", folder)
        .env("LC_ALL", "C.UTF-8")
        .env("RABBITMQ_NODENAME", format!("dsn{port}@localhost"))
        .env("ERL_EPMD_PORT", epmd_port.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
}

/// A TCP forwarder that can be cut: a broker that is away, for the one who uses it.
pub struct Cable {
    port: u16,
    plugged: Arc<Mutex<bool>>,
    garbled: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Cable {
    pub fn to(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let plugged = Arc::new(Mutex::new(true));
        let cable = Self { port, plugged, garbled: Arc::default(), open: Arc::default() };
        let (plugged, open, garbled) = (cable.plugged.clone(), cable.open.clone(), cable.garbled.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if !*plugged.lock().expect("whole") {
                    continue;
                }
                let Ok(other) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { continue };
                let mut streams = open.lock().expect("whole");
                for (from, to, garbled) in [(&stream, &other, Arc::default()), (&other, &stream, garbled.clone())] {
                    let (from, mut to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
                    streams.push(from.try_clone().expect("a socket"));
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut Wire { from, garbled }, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        cable
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// What comes from the other end is garbage until the cable is pulled.
    pub fn garble(&self) {
        self.garbled.store(true, Ordering::Relaxed);
    }

    pub fn pull(&self) {
        *self.plugged.lock().expect("whole") = false;
        self.garbled.store(false, Ordering::Relaxed);
        for stream in self.open.lock().expect("whole").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub fn plug(&self) {
        *self.plugged.lock().expect("whole") = true;
    }
}

/// One direction of a cable.
struct Wire {
    from: TcpStream,
    garbled: Arc<AtomicBool>,
}

impl Read for Wire {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let count = self.from.read(bytes)?;
        if self.garbled.load(Ordering::Relaxed) {
            for byte in &mut bytes[..count] {
                *byte = byte.wrapping_mul(171).wrapping_add(91);
            }
        }
        Ok(count)
    }
}
