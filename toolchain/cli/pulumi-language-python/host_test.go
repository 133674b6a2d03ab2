package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"google.golang.org/protobuf/types/known/structpb"
)

// venv makes what looks like a virtual environment, with the given files in its site-packages.
func venv(t *testing.T, config string, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	write := func(path, content string) {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write("pyvenv.cfg", config)
	write("bin/python", "#!/bin/sh\necho '[{\"resource\":true,\"name\":\"from-python\",\"version\":\"1.0.0\"}]'\n")
	for path, content := range files {
		write(filepath.Join("lib/python3.11/site-packages", path), content)
	}
	return root
}

func required(t *testing.T, venv string) (*pulumirpc.GetRequiredPackagesResponse, error) {
	t.Helper()
	options, err := structpb.NewStruct(map[string]any{"virtualenv": venv, "toolchain": "pip"})
	if err != nil {
		t.Fatal(err)
	}
	info := &pulumirpc.ProgramInfo{RootDirectory: "/", ProgramDirectory: "/", EntryPoint: ".", Options: options}
	h := &host{done: t.Context()}
	return h.GetRequiredPackages(context.Background(), &pulumirpc.GetRequiredPackagesRequest{Info: info})
}

const own = "include-system-site-packages = false\n"

func TestRequiredPackages(t *testing.T) {
	docker := map[string]string{
		"pulumi/__init__.py":               "",
		"pulumi_docker/pulumi-plugin.json": `{"resource": true, "name": "docker", "version": "5.2.0"}`,
		"pulumi_policy/pulumi-plugin.json": `{"resource": false}`,
		"pulumi_other/pulumi-plugin.json": `{"resource": true, "name": "base", "version": "v1.0.0",
			"parameterization": {"name": "other", "version": "2.0.0", "value": "aGk="}}`,
	}
	editable := map[string]string{"pulumi/__init__.py": "", "__editable__x.pth": "/elsewhere"}
	for name, test := range map[string]struct {
		venv string
		want string
	}{
		"read from the files":           {venv(t, own, docker), "docker v5.2.0, base v1.0.0 (other 2.0.0 hi)"},
		"asked of Python, editable":     {venv(t, own, editable), "from-python v1.0.0"},
		"asked of Python, system's too": {venv(t, strings.ReplaceAll(own, "false", "true"), nil), "from-python v1.0.0"},
	} {
		t.Run(name, func(t *testing.T) {
			res, err := required(t, test.venv)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range res.Packages {
				s := p.Name + " " + p.Version
				if x := p.Parameterization; x != nil {
					s += " (" + x.Name + " " + x.Version + " " + string(x.Value) + ")"
				}
				got = append(got, s)
			}
			if s := strings.Join(got, ", "); s != test.want {
				t.Errorf("got %q, want %q", s, test.want)
			}
		})
	}
}

func TestRequiredPackagesErrors(t *testing.T) {
	removed := venv(t, own, nil)
	if err := os.Remove(filepath.Join(removed, "bin/python")); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ venv, want string }{
		"no environment": {"/nowhere/.venv", "there is no Python virtual environment in /nowhere/.venv"},
		"Python removed": {removed, "there is no Python virtual environment in "},
		"no pulumi":      {venv(t, own, nil), "the package pulumi is not installed"},
		"broken declaration": {venv(t, own, map[string]string{
			"pulumi/__init__.py": "", "x/pulumi-plugin.json": "{"}), "x/pulumi-plugin.json: unexpected end"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := required(t, test.venv); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestConfigIsAnObjectEvenWhenThereIsNone(t *testing.T) {
	env, err := configEnv(&pulumirpc.RunRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(env, " "); got != "PULUMI_CONFIG={} PULUMI_CONFIG_SECRET_KEYS=[]" {
		t.Error(got)
	}
}

func TestExplain(t *testing.T) {
	p := &program{info: &pulumirpc.ProgramInfo{ProgramDirectory: "/p", EntryPoint: "."}}
	for script, want := range map[string]string{
		"exit 3":     "the program /p stopped with exit status 3",
		"kill -9 $$": "was ended by a signal (killed)",
	} {
		if got := explain(p, exec.Command("sh", "-c", script).Run()).Error(); !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", script, got, want)
		}
	}
}
