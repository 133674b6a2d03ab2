-- What each user may ask of this node, by role. Before Orthanc answers a request by HTTP, it asks IncomingHttpRequestFilter; what is
-- not named here is refused with 403. Above these lines, the program writes ROLES: user -> role.
-- The URI comes as it was asked for, decoded, less its query and with "." and ".." resolved (civetweb's local_uri).

-- Orthanc's pages and what describes the node: nobody's images.
local PUBLIC = {'/app', '/ui', '/system', '/plugins', '/favicon.ico'}
-- What is read of images, with the plugins of orthancteam/orthanc that show them.
local READ = {
  '/patients', '/studies', '/series', '/instances', '/statistics', '/dicom-web', '/wado', '/tools/labels', '/tools/create-archive',
  '/tools/create-media', '/ohif', '/stone-webviewer', '/volview', '/web-viewer', '/osimis-viewer', '/wsi',
}
-- Questions that come as a POST, because they are long.
local QUERIES = {
  ['/tools/find'] = true, ['/tools/count-resources'] = true, ['/tools/lookup'] = true, ['/tools/bulk-content'] = true,
}

local function below(uri, places)
  for _, place in ipairs(places) do
    if uri == place or string.sub(uri, 1, #place + 1) == place .. '/' then
      return true
    end
  end
  return false
end

local function is_public(method, uri)
  return method == 'GET' and (uri == '/' or below(uri, PUBLIC))
end

local may = {}

function may.admin()
  return true
end

function may.viewer(method, uri)
  if method == 'POST' then
    return QUERIES[uri] == true
  end
  return is_public(method, uri) or (method == 'GET' and below(uri, READ))
end

function may.uploader(method, uri)
  if method == 'POST' then
    return uri == '/instances' or below(uri, {'/dicom-web/studies'}) and string.find(uri, '^/dicom%-web/studies/?[0-9.]*$') ~= nil
  end
  return is_public(method, uri)
end

-- The forwarder beside the node (forwarder/): what it asks, and nothing else.
function may.forwarder(method, uri)
  if method == 'GET' then
    return uri == '/changes' or uri == '/series' or uri == '/system'
      or string.find(uri, '^/studies/[^/]+$') ~= nil
      or string.find(uri, '^/storage%-commitment/[^/]+$') ~= nil
      or string.find(uri, '^/queries/[^/]+/answers$') ~= nil
  elseif method == 'POST' then
    return QUERIES[uri] == true
      or string.find(uri, '^/modalities/[^/]+/echo$') ~= nil
      or string.find(uri, '^/modalities/[^/]+/store$') ~= nil
      or string.find(uri, '^/modalities/[^/]+/query$') ~= nil
      or string.find(uri, '^/modalities/[^/]+/storage%-commitment$') ~= nil
  elseif method == 'PUT' then
    return string.find(uri, '^/series/[^/]+/metadata/%d+$') ~= nil
  end
  return method == 'DELETE' and DELETES and string.find(uri, '^/instances/[^/]+$') ~= nil
end

function IncomingHttpRequestFilter(method, uri, ip, username, httpHeaders)
  local role = may[ROLES[username]]
  -- "/instances/" is "/instances" to Orthanc.
  return role ~= nil and role(method, uri == '/' and uri or (string.gsub(uri, '/+$', '')))
end
