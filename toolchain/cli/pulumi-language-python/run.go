package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
	"github.com/pulumi/pulumi/sdk/v3/go/common/util/rpcutil"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"github.com/pulumi/pulumi/sdk/v3/python/toolchain"
)

const (
	// errorShown is the exit status of pulumi-language-python-exec after it has shown the program's error to the user.
	errorShown = 32
	// killDelay is how long a cancelled Python may take to end before it is killed.
	killDelay = 2 * time.Second
)

// program is a Python project as the engine describes it, with the toolchain that its Pulumi.yaml asks for.
type program struct {
	toolchain.Toolchain

	info        *pulumirpc.ProgramInfo
	virtualenv  string // absolute; empty without a `virtualenv` option
	typechecker string
}

var toolchains = map[string]func(*toolchain.PythonOptions){
	"":       func(o *toolchain.PythonOptions) { o.Toolchain = toolchain.Auto },
	"pip":    func(o *toolchain.PythonOptions) { o.Toolchain = toolchain.Pip },
	"poetry": func(o *toolchain.PythonOptions) { o.Toolchain = toolchain.Poetry },
	"uv":     func(o *toolchain.PythonOptions) { o.Toolchain = toolchain.Uv },
}

func open(info *pulumirpc.ProgramInfo) (*program, error) {
	settings := info.Options.AsMap()
	text := func(key string) string { s, _ := settings[key].(string); return s }

	options := toolchain.PythonOptions{
		Root: info.RootDirectory, ProgramDir: info.ProgramDirectory, Virtualenv: text("virtualenv"),
	}
	choose, known := toolchains[text("toolchain")]
	if !known {
		return nil, fmt.Errorf("Pulumi.yaml: runtime.options.toolchain is %q; it may be pip, poetry or uv", text("toolchain"))
	}
	choose(&options)
	tc, err := toolchain.ResolveToolchain(options)
	if err != nil {
		return nil, err
	}
	p := &program{Toolchain: tc, info: info, typechecker: text("typechecker")}
	if p.virtualenv = options.Virtualenv; p.virtualenv != "" && !filepath.IsAbs(p.virtualenv) {
		p.virtualenv = filepath.Join(info.RootDirectory, p.virtualenv)
	}
	return p, nil
}

// file is what the engine calls the program: usually the folder that holds __main__.py.
func (p *program) file() string { return filepath.Join(p.info.ProgramDirectory, p.info.EntryPoint) }

// python prepares a Python process that ends with the request or with the host, whichever is first.
//
// It stays in the host's process group: the engine interrupts, and at last kills, that group as a whole, so what the
// program itself has started goes too.
func (h *host) python(ctx context.Context, p *program, args ...string) (*exec.Cmd, error) {
	ctx, stop := context.WithCancel(ctx)
	context.AfterFunc(h.done, stop)
	cmd, err := p.Command(ctx, args...)
	if err != nil {
		stop()
		return nil, err
	}
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = killDelay
	return cmd, nil
}

// Run runs the program once, and tells the engine how it ended.
//
// An error of the program is an answer, not an error of this call: only then does the engine show it with the stack.
func (h *host) Run(ctx context.Context, req *pulumirpc.RunRequest) (*pulumirpc.RunResponse, error) {
	failed := func(err error) (*pulumirpc.RunResponse, error) {
		return &pulumirpc.RunResponse{Error: err.Error()}, nil
	}
	p, err := open(req.Info)
	if err != nil {
		return failed(err)
	}
	if err := p.check(); err != nil {
		return failed(err)
	}
	if req.AttachDebugger {
		return failed(errors.New("this language host cannot attach a debugger; run without --attach-debugger, " +
			"or with the pulumi of Pulumi's own installer"))
	}
	if err := h.typecheck(ctx, p); err != nil {
		return failed(err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	engine := h.engine
	if len(req.Args) > 0 {
		engine = req.Args[0]
	}
	cmd, err := h.python(ctx, p, "-u", filepath.Join(filepath.Dir(self), "pulumi-language-python-exec"),
		"--project", req.Project, "--stack", req.Stack, "--organization", req.Organization,
		"--parallel", strconv.Itoa(int(req.Parallel)), "--dry_run", strconv.FormatBool(req.DryRun),
		"--pwd", req.Pwd, "--root_directory", req.Info.RootDirectory,
		"--monitor", req.MonitorAddress, "--engine", engine, p.file())
	if err != nil {
		return failed(err)
	}
	config, err := configEnv(req)
	if err != nil {
		return nil, err
	}
	cmd.Env = append(cmd.Env, config...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr // the engine shows these with the stack
	err = cmd.Run()
	if status(err) == errorShown {
		return &pulumirpc.RunResponse{Bail: true}, nil
	}
	if err != nil {
		return failed(explain(p, err))
	}
	return &pulumirpc.RunResponse{}, nil
}

// configEnv is how the SDK gets the stack's configuration, and which of its values are secret.
func configEnv(req *pulumirpc.RunRequest) ([]string, error) {
	// Without configuration, gRPC hands over nil: that would be JSON's null, on which the SDK's set_all_config fails.
	config, secrets := req.Config, req.ConfigSecretKeys
	if config == nil {
		config = map[string]string{}
	}
	if secrets == nil {
		secrets = []string{}
	}
	configJSON, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	secretsJSON, err := json.Marshal(secrets)
	if err != nil {
		return nil, err
	}
	return []string{"PULUMI_CONFIG=" + string(configJSON), "PULUMI_CONFIG_SECRET_KEYS=" + string(secretsJSON)}, nil
}

// status is the exit status of a command that ran; 0 when it did not fail, -1 when it never ended by itself.
func status(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	default:
		return -1
	}
}

// explain says how a program ended that gave no reason of its own.
func explain(p *program, err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return fmt.Errorf("Python did not start: %w\n%s", err, p.install())
	}
	if wait, ok := exit.Sys().(syscall.WaitStatus); ok && wait.Signaled() {
		return fmt.Errorf("the program %s was ended by a signal (%s) before it was through: run it again",
			p.file(), wait.Signal())
	}
	return fmt.Errorf("the program %s stopped with exit status %d; what it printed above says why "+
		"(where it prints nothing: look for sys.exit)", p.file(), exit.ExitCode())
}

// typecheck runs the checker that `runtime.options.typechecker` names, before the program changes anything.
func (h *host) typecheck(ctx context.Context, p *program) error {
	switch p.typechecker {
	case "":
		return nil
	case "mypy", "pyright":
	default:
		return fmt.Errorf("Pulumi.yaml: runtime.options.typechecker is %q; it may be mypy or pyright", p.typechecker)
	}
	cmd, err := h.python(ctx, p, "-m", p.typechecker, p.info.ProgramDirectory)
	if err != nil {
		return err
	}
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.info.ProgramDirectory, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s found errors, shown above: the program was not run", p.typechecker)
	}
	return nil
}

// RunPlugin runs a Python plugin until the engine stops it: a policy pack, or a program that serves a provider.
func (h *host) RunPlugin(req *pulumirpc.RunPluginRequest, stream pulumirpc.LanguageRuntime_RunPluginServer) error {
	p, err := open(req.Info)
	if err != nil {
		return err
	}
	if err := p.check(); err != nil {
		return err
	}
	args, dir := append([]string{"-u", p.info.ProgramDirectory}, req.Args...), req.Pwd
	if req.Kind == string(apitype.AnalyzerPlugin) {
		// A policy pack is a library: pulumi.policy runs it, from its own folder.
		args, dir = append(append([]string{"-u", "-m", "pulumi.policy"}, req.Args...), p.info.ProgramDirectory), p.info.ProgramDirectory
	}
	cmd, err := h.python(stream.Context(), p, args...)
	if err != nil {
		return err
	}
	closer, stdout, stderr, err := rpcutil.MakeRunPluginStreams(stream, false)
	if err != nil {
		return err
	}
	defer closer.Close()
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, stdout, stderr
	cmd.Env = append(cmd.Env, req.Env...)
	err = cmd.Run()
	if code := status(err); code > 0 {
		return stream.Send(&pulumirpc.RunPluginResponse{
			Output: &pulumirpc.RunPluginResponse_Exitcode{Exitcode: int32(code)},
		})
	}
	return err
}
