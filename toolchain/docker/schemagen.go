//go:build schemagen

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfgen"
	"github.com/pulumi/pulumi/sdk/v3/go/common/diag"
	"github.com/pulumi/pulumi/sdk/v3/go/common/diag/colors"
)

// main writes the plugin's schema to the file that it is given.
func main() {
	if err := generate(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "generating the schema:", err)
		os.Exit(1)
	}
}

func generate(file string) error {
	info := provider()
	info.UpstreamRepoPath = "." // texts for documentation would come from here; there are none, and none are used
	// Every warning is about those missing texts.
	sink := diag.DefaultSink(io.Discard, io.Discard, diag.FormatOptions{Color: colors.Never})
	result, err := tfgen.GenerateSchemaWithOptions(tfgen.GenerateSchemaOptions{
		ProviderInfo: info, DiagnosticsSink: sink, XInMemoryDocs: true,
	})
	if err != nil {
		return err
	}
	content, err := json.Marshal(result.PackageSpec)
	if err != nil {
		return err
	}
	return os.WriteFile(file, content, 0o644)
}
